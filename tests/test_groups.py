"""Groups, and the one place where names become transforms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import equivae
from equivae import InputError

ORDERS = {"c2": 2, "c4": 4, "d2": 4, "d4": 8}


@pytest.mark.parametrize("name", ORDERS)
def test_group_axioms(name):
    group = equivae.get_group(name)
    assert group.name == name
    assert len(group) == len(set(group)) == ORDERS[name]
    assert group[0].name == "identity"
    for a in group:
        assert a.inverse in group
        for b in group:
            assert a @ b in group


def test_list_groups():
    assert set(ORDERS) <= set(equivae.list_groups())


def test_unknown_group_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown group 'd5'.*(d2|d4)"):
        equivae.get_group("d5")


def names(transforms):
    return [t.name for t in equivae.resolve_transforms(transforms)]


def test_one_name_or_one_transform_or_one_group():
    assert names("rot180") == ["rot180"]
    assert names(equivae.get_transform("hflip")) == ["hflip"]
    assert names(equivae.get_group("c4")) == names("c4") == ["rot90", "rot180", "rot270"]
    assert names([]) == []


def test_mixtures_lose_repetitions_and_the_identity_but_keep_their_order():
    mixture = ["hflip", "identity", equivae.get_group("c2"), "d2", equivae.get_transform("rot90")]
    assert names(mixture) == ["hflip", "rot180", "vflip", "rot90"]
    assert names(iter(["vflip", "hflip"])) == ["vflip", "hflip"]


@given(st.lists(st.sampled_from([*equivae.list_transforms(), *ORDERS])))
def test_resolving_twice_changes_nothing(wanted):
    once = equivae.resolve_transforms(wanted)
    assert equivae.resolve_transforms(once) == once
    assert len({t.name for t in once}) == len(once)
    assert "identity" not in {t.name for t in once}


def test_compositions_resolve_under_their_own_name():
    class Shy(equivae.Transform):
        name = "shy"

        def pixel(self, x):
            return x

        def latent(self, z):
            return z

    assert names([Shy() @ equivae.get_transform("hflip"), "hflip"]) == ["shy@hflip", "hflip"]


@pytest.mark.parametrize("word", ["rot18", "hflipp", "d44"])
def test_unknown_names_get_the_nearest(word):
    with pytest.raises(InputError, match=f"unknown transform '{word}'. Did you mean"):
        equivae.resolve_transforms([word])


def test_what_is_no_transform_is_refused():
    with pytest.raises(InputError, match="not a transform"):
        equivae.resolve_transforms(["hflip", 90])
