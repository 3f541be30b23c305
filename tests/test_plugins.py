"""Plugins found through entry points, the table, and how transforms are written."""

import contextlib
import sys
import textwrap
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import equivae
from equivae.transforms import plugins, registry, split_transforms, transform_table
from equivae.transforms.spelling import parse_spelling, spell

DIST_INFO = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package with entry points on the path, as an installed one is; forget it afterwards."""
    monkeypatch.setattr(plugins, "_seen", set(plugins._seen))
    for table in ("_FACTORIES", "_BUILTIN_GROUPS", "_PLUGIN_PACKAGES"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set()

    def put(package, code, entries):
        module = package.replace("-", "_")
        modules.add(module)
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(DIST_INFO.format(name=package))
        lines = [
            f"{name} = {module}{':' if attribute else ''}{attribute}" for name, attribute in entries
        ]
        (info / "entry_points.txt").write_text("\n".join(["[equivae.transforms]", *lines]) + "\n")

    yield put
    for name in modules:  # what else was imported meanwhile is kept, torch's parts among it
        sys.modules.pop(name, None)


PLUGIN = """
    import equivae

    class Negative(equivae.Transform):
        name = "negative"
        def __init__(self, strength=1.0):
            self.strength = strength
        def pixel(self, x):
            return -self.strength * x
        def latent(self, z):
            return -self.strength * z
        @property
        def inverse(self):
            return Negative(1 / self.strength)

    instance = Negative(2.0)
    number = 3
"""


def test_a_plugin_is_found_by_name(install):
    install("equivae-negative", PLUGIN, [("negative", "Negative"), ("double_negative", "instance")])
    t = equivae.get_transform("negative", strength=0.5)
    assert torch.equal(t.pixel(torch.ones(1, 1, 2, 2)), -0.5 * torch.ones(1, 1, 2, 2))
    assert {"negative", "double_negative"} <= set(equivae.list_transforms())
    assert equivae.resolve_transforms("negative(strength=2)")[0].strength == 2
    rows = {row.name: row for row in transform_table()}
    assert rows["negative"].group == "plugin"
    assert rows["negative"].source == "equivae-negative"
    assert rows["negative"].parameters == "strength=1"
    equivae.testing.check_transform("negative", max_examples=3)


@pytest.mark.parametrize(
    ("code", "entry", "reason"),
    [
        ("import nothing_of_that_name", ("bad", "x"), "nothing_of_that_name"),
        ("raise SystemError('half installed')", ("bad", "x"), "half installed"),
        ("", ("bad", "Missing"), "Missing"),
        (PLUGIN, ("bad", "number"), "not a transform"),
        ("this is no python", ("bad", "x"), "SyntaxError"),
        (PLUGIN, ("rot180", "Negative"), "belongs to equivae"),
    ],
)
def test_a_bad_plugin_is_a_warning_that_names_its_package(install, code, entry, reason):
    install("broken-plugin", code, [entry])
    with pytest.warns(RuntimeWarning, match=f"'broken-plugin'.*{reason}"):
        names = equivae.list_transforms()
    assert "bad" not in names
    x = torch.rand(1, 1, 2, 2)
    assert torch.equal(equivae.get_transform("rot180").pixel(x), x.flip((-2, -1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        equivae.list_transforms()


def test_two_plugins_with_one_name(install):
    install("first-plugin", PLUGIN, [("same", "Negative")])
    install("second-plugin", PLUGIN, [("same", "Negative")])
    with pytest.warns(
        RuntimeWarning, match="'same' of the package '(first|second)-plugin' was left out"
    ):
        assert "same" in equivae.list_transforms()


def test_a_good_plugin_survives_a_bad_one(install):
    install("bad-plugin", "1 / 0", [("bad", "x")])
    install("good-plugin", PLUGIN, [("good", "Negative")])
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError"):
        assert equivae.get_transform("good").name == "negative"


def test_the_table_lists_everything_once():
    rows = transform_table()
    assert sorted(row.name for row in rows) == sorted(equivae.list_transforms())
    by_name = {row.name: row for row in rows}
    assert by_name["rot180"].kind == by_name["crop"].kind == by_name["random_flip"].kind == "exact"
    assert by_name["rotate"].kind == by_name["eqvae"].kind == "resampled"
    assert by_name["rotate"].parameters.startswith("angle=30")
    assert all(row.source == "equivae" for row in rows if row.group not in ("custom", "plugin"))


def test_the_table_shows_where_a_custom_transform_is_from():
    equivae.register_transform(
        "table_test", pixel=lambda x: x, latent=lambda z: z, inverse="table_test", override=True
    )
    row = next(row for row in transform_table() if row.name == "table_test")
    assert (row.group, row.source) == ("custom", __name__)


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("rot180", ["rot180"]),
        ("rot180,scale(factor=0.5)", ["rot180", "scale(factor=0.5)"]),
        (" a , b(x=(1, 2), y=[3, 4]),c", ["a", "b(x=(1, 2), y=[3, 4])", "c"]),
        ("choice(of='hflip,rotate(angle=3)'),d4", ["choice(of='hflip,rotate(angle=3)')", "d4"]),
        ("", []),
        ("a,,b,", ["a", "b"]),
    ],
)
def test_lists_split_outside_brackets(text, members):
    assert split_transforms(text) == members


@pytest.mark.parametrize("text", ["scale(factor=0.5", "a),b", "a(,b"])
def test_unmatched_brackets_are_refused(text):
    with pytest.raises(equivae.InputError, match="brackets"):
        split_transforms(text)


VALUES = st.one_of(
    st.integers(-999, 999),
    st.booleans(),
    st.sampled_from(["reflection", "a,b", "it's"]),
    st.tuples(st.integers(0, 9), st.floats(-4, 4, width=16)),
)


@given(st.dictionaries(st.sampled_from(["factor", "angle", "padding_mode"]), VALUES))
def test_what_is_spelled_can_be_read(parameters):
    name, read = parse_spelling(spell("thing", **parameters))
    assert name == "thing"
    assert (
        read == pytest.approx(parameters)
        if not any(isinstance(v, (str, tuple)) for v in parameters.values())
        else set(read) == set(parameters)
    )


@given(st.text(max_size=30))
def test_nothing_written_is_evaluated_or_crashes(text):
    for written in (text, f"scale({text})", f"scale(factor={text})"):
        with contextlib.suppress(equivae.InputError):
            equivae.resolve_transforms(written)


@pytest.mark.parametrize(
    "text",
    [
        "scale(0.5)",
        "scale(factor=__import__('os'))",
        "scale(**{'factor': 1})",
        "scale(factor=0.5)()",
        "scale(factor=0.5).pixel",
        "os.system(x=1)",
        "scale(factor=1)\nimport os",
    ],
)
def test_code_is_refused(text):
    with pytest.raises(equivae.InputError):
        equivae.resolve_transforms(text)


def test_resolved_names_carry_their_parameters():
    found = equivae.resolve_transforms(["rot180", "scale(factor=0.50)", "rotate(angle=30)", "c2"])
    assert [t.name for t in found] == ["rot180", "scale(factor=0.5)", "rotate(angle=30)"]
    with pytest.raises(equivae.InputError, match="factr"):
        equivae.resolve_transforms("scale(factr=0.5)")
    with pytest.raises(equivae.InputError, match="Did you mean 'scale'"):
        equivae.resolve_transforms("scael(factor=0.5)")
