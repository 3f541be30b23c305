"""A transform is what it does: equality, hashes, and names that can be read back."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import equivae
from equivae import InputError
from equivae.transforms import (
    Blend,
    ChannelPermutation,
    ChannelResponse,
    ComposedTransform,
    LatticeTransform,
    ModuleResponse,
    PerSample,
    SignFlips,
    choice,
    compose,
    maybe,
)
from equivae.transforms.lattice import LATTICE

get = equivae.get_transform
BUILTIN = [row.name for row in equivae.transforms.transform_table() if row.source == "equivae"]
LATTICE_NAMES = [t.name for t in LATTICE]

# Names that can be read back -----------------------------------------------------------------------

PARAMETRISED = [
    "shift(y=-3,x=0)",
    "crop(size=(0.25,0.75),y=0,x=1)",
    "scale(factor=(0.5,0.34375),interpolation='bicubic',antialias=False)",
    "rotate(angle=-140.25,interpolation='nearest',padding_mode='reflection',antialias=False)",
    "translate(cells=(1.5,-0.25),padding_mode='circular')",
    "perspective(corners=((0,0.1),(0,0),(0,0),(0,0)))",
    "fractional_shift(y=0.125,x=-2,cyclic=True)",
    "signed_hflip(channels=(0,1))",
    "signed_rot180(channels=())",
    "blend(weight=0.75)",
    "time_shift(steps=-2)",
    "random_scale(factors=(0.5,),anisotropic=True)",
    "random_zoom(factors=(1.25,1.5),interpolation='bicubic',same_on_batch=True)",
    "random_affine(degrees=(-5,10),padding_mode='border')",
    "random_blend(weight=(0.1,0.4),same_on_batch=True)",
    "random_rot90(same_on_batch=True)",
    "scale_equivariance(factors=(0.25,))",
    "eqvae(anisotropic=True,antialias=True)",
    "choice(of='hflip,maybe(transform=\\'rot180\\',p=0.25)',weights=(1,3),same_on_batch=False)",
    "compose(of='crop,rotate(angle=45),hflip')",
    "maybe(transform='choice(of=\\'hflip,scale(factor=0.5)\\')',p=0.1)",
]


def rich():
    """Transforms made of others in every way there is."""
    turn, shift, zoom = get("rot90"), get("shift", y=2, x=0), get("zoom", factor=1 / 3)
    signs = get("hflip").with_representation(SignFlips((0, -1)))
    order = turn.with_representation(ChannelPermutation((1, 2, 0)))
    return [
        turn @ shift,
        shift @ turn @ zoom,
        get("rot180") @ (turn @ shift),
        signs,
        order.inverse,
        signs @ shift,
        shift @ signs,
        (turn @ shift).with_representation(SignFlips((1,))),
        signs.with_representation(ChannelPermutation((1, 0, 2))),
        zoom.inverse @ order,
        choice([signs @ shift, "eqvae"], weights=(1, 2)),
        maybe(turn @ zoom, p=1 / 3, same_on_batch=False),
        compose([signs, "rotate(angle=12.5)", order]),
        get("random_rotate", degrees=7).with_representation(SignFlips((2,))) @ shift,
    ]


@pytest.mark.parametrize("name", [*BUILTIN, *PARAMETRISED])
def test_the_name_of_every_built_in_is_read_back(name):
    t = get(name)
    again = get(t.name)
    assert again == t
    assert hash(again) == hash(t)
    assert again.name == t.name
    assert equivae.resolve_transforms([t, again]) == equivae.resolve_transforms(t)


@pytest.mark.parametrize("t", rich(), ids=lambda t: t.name)
def test_the_name_of_what_is_made_of_others_is_read_back(t):
    again = get(t.name)
    assert again == t
    assert hash(again) == hash(t)
    assert equivae.transforms.split_transforms(f"rot90,{t.name}") == ["rot90", t.name]
    if not isinstance(t, equivae.transforms.RandomTransform):
        z = torch.rand(1, 3, 4, 4)
        ours, theirs = (t.draw(1, torch.Generator().manual_seed(0)) for t in (t, again))
        assert torch.equal(ours.latent(z), theirs.latent(z))


NUMBERS = st.floats(-2, 2, allow_nan=False)
LEAVES = st.one_of(
    st.sampled_from([n for n in BUILTIN if not n.startswith("time") and n != "polarity"]).map(get),
    st.builds(lambda a: get("rotate", angle=a), st.floats(-180, 180)),
    st.builds(lambda y, x: get("fractional_shift", y=y, x=x), NUMBERS, NUMBERS),
    st.builds(lambda s: get("scale", factor=s), st.floats(0.01, 3)),
)


def _grown(members):
    return st.one_of(
        st.builds(lambda a, b: a @ b, members, members),
        st.builds(
            lambda t, c: t.with_representation(SignFlips(c)), members, st.tuples(st.integers(0, 3))
        ),
        st.builds(
            lambda ts, w: choice(ts, weights=w[: len(ts)]),
            st.lists(members, min_size=1, max_size=2),
            st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)),
        ),
        st.builds(lambda t, p: maybe(t, p=p), members, st.floats(0, 1)),
        st.builds(compose, st.lists(members, min_size=1, max_size=3)),
    )


@settings(max_examples=60, deadline=None)
@given(st.recursive(LEAVES, _grown, max_leaves=4))
def test_any_name_is_read_back(t):
    assert get(t.name) == t


@given(NUMBERS)
def test_numbers_keep_all_their_digits(angle):
    assert get(get("rotate", angle=angle).name).angle == angle


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    t = get("shift", y=numpy.int64(2), x=0)
    assert t.name == "shift(y=2,x=0)"
    assert get("rotate", angle=numpy.float32(0.5)).name == "rotate(angle=0.5)"


def test_what_cannot_be_read_back_says_so():
    drawn = get("random_rotate").draw(3, torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="cannot be read back: its parameters were drawn"):
        get(drawn.name)
    learned = get("hflip").with_representation(ModuleResponse(nn.Conv2d(4, 4, 1)))
    with pytest.raises(InputError, match="'Conv2d' cannot be read from a name"):
        get(learned.name)
    nameless = equivae.transforms.FunctionTransform("mine", lambda x: x, lambda z: z)
    with pytest.raises(InputError, match="unknown transform 'mine'"):
        get((nameless @ get("rot90")).name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rot90@", "cannot be read"),
        ("rot90+hflip", "'hflip' cannot be read from a name"),
        ("rot90+SignFlips(chanels=(0,))", "chanels"),
        ("inverse(crop)", "no inverse"),
        ("rot90*hflip", "unknown transform"),
        ("rot90@rot18", "unknown transform 'rot18'"),
    ],
)
def test_what_is_no_name_is_refused(text, words):
    with pytest.raises((InputError, NotImplementedError), match=words):
        get(text)


def test_a_parameter_beside_a_composed_name_is_refused():
    with pytest.raises(InputError, match="made of several"):
        get("rotate(angle=3)@scale", factor=0.5)


# Equality ------------------------------------------------------------------------------------------


def test_equality_is_what_it_does_and_not_the_name():
    assert LatticeTransform("mirror", flips_width=True) == get("hflip")
    signs = SignFlips((0,))
    one, other = (get("hflip").with_representation(signs, name) for name in ("one", "other"))
    assert one == other
    assert one != get("vflip").with_representation(signs, "one")
    assert one != get("hflip").with_representation(SignFlips((1,)), "one")
    assert get("scale", factor=0.5) == get("scale", factor=(0.5, 0.5))
    assert get("crop", size=0.5) == get("crop", size=(0.5, 0.5))
    assert get("translate", cells=(1, 1)) == get("translate", cells=(1.0, 1.0), y=0.5)
    assert get("rot180") != "rot180"


def test_products_are_equal_however_they_are_bracketed():
    a, b, c = get("rotate", angle=1), get("shift"), get("zoom")
    assert (a @ b) @ c == a @ (b @ c)
    assert hash((a @ b) @ c) == hash(a @ (b @ c))
    assert a @ b != b @ a
    assert get("rot180") @ (get("rot90") @ b) == get("rot270") @ b
    assert ComposedTransform(a, b, "called otherwise") == a @ b


def test_drawn_transforms_are_equal_where_their_parameters_are():
    def draw(name, seed, batch=3):
        return get(name).draw(batch, torch.Generator().manual_seed(seed))

    for name in ("random_affine", "random_shift", "random_blend", "random_rot90"):
        assert draw(name, 0) == draw(name, 0)
        assert hash(draw(name, 0)) == hash(draw(name, 0))
        assert draw(name, 0) != draw(name, 1)
    assert draw("random_shift", 0) != draw("random_shift", 0, batch=2)
    rows = [(get("hflip"), [0]), (get("vflip"), [1])]
    assert PerSample(rows, "a") == PerSample(rows, "b")


def test_a_class_of_ones_own_is_equal_where_its_attributes_are():
    class Mine(equivae.Transform):
        def __init__(self, by, name="mine"):
            self.by, self.name = by, name

        def pixel(self, x):
            return x * self.by

        latent = pixel

    assert Mine(torch.ones(2)) == Mine(torch.ones(2), "other")
    assert Mine(torch.ones(2)) != Mine(torch.zeros(2))
    assert Mine([1, {"a": torch.ones(1)}]) == Mine((1, {"a": torch.ones(1)}))
    assert hash(Mine([1, {"a": 2}])) == hash(Mine((1.0, {"a": 2})))
    numpy = pytest.importorskip("numpy")
    assert Mine(numpy.ones(2)) == Mine(numpy.ones(2))
    assert Mine(numpy.ones(2)) != Mine(numpy.ones(3))
    function = equivae.transforms.FunctionTransform
    assert function("a", torch.neg, torch.neg, "a") == function("b", torch.neg, torch.neg, "b")
    assert function("a", torch.neg, torch.neg, "a") != function("a", torch.neg, torch.abs, "a")


def test_a_module_is_the_same_response_only_to_itself():
    module = nn.Conv2d(4, 4, 1)
    assert ModuleResponse(module) == ModuleResponse(module)
    assert ModuleResponse(module) != ModuleResponse(nn.Conv2d(4, 4, 1))


def test_a_response_of_ones_own_names_itself():
    class Halve(ChannelResponse):
        def __call__(self, z):
            return z / 2

    assert get("hflip").with_representation(Halve()).name == "hflip+Halve"


# Where names are keys ------------------------------------------------------------------------------


def unequal_pairs():
    flip = get("hflip")
    return [
        [flip.with_representation(SignFlips((i,)), "signed") for i in (0, 1)],
        [get("random_rotate").draw(2, torch.Generator().manual_seed(i)) for i in (0, 1)],
        [Blend(weight=0.5, partner=torch.tensor(order)) for order in ([1, 0], [0, 1])],
        [equivae.transforms.FunctionTransform("f", op, op) for op in (torch.neg, torch.abs)],
        [flip.with_representation(ModuleResponse(nn.Conv2d(4, 4, 1))) for _ in range(2)],
        [get("crop", cell=cell) for cell in (8, 16)],
    ]


@pytest.mark.parametrize("pair", unequal_pairs(), ids=lambda pair: pair[0].name)
def test_unequal_transforms_of_one_name_are_refused(pair):
    first, second = pair
    assert first.name == second.name
    words = re.escape(f"both called {first.name!r}")
    for use in (
        equivae.resolve_transforms,
        equivae.EquivarianceLoss,
        lambda both: equivae.evaluate(equivae.zoo.load(), torch.zeros(1, 3, 64, 64), both),
    ):
        with pytest.raises(InputError, match=words):
            use([first, "rot180", second])


def test_equal_ones_count_once():
    t = get("hflip").with_representation(SignFlips((0,)))
    again = get("hflip").with_representation(SignFlips((0,)))
    assert equivae.resolve_transforms([t, again, "rot180"]) == [t, get("rot180")]
    assert equivae.resolve_transforms(["rot90@rot90", "rot180", "rot90@rot270"]) == [get("rot180")]


def test_another_partner_is_another_name():
    assert Blend(weight=0.5).name != Blend(weight=0.5, partner=torch.tensor([1, 0])).name


def test_a_transform_that_calls_itself_identity_and_is_none_is_kept():
    other = equivae.transforms.FunctionTransform("identity", torch.neg, torch.neg)
    assert equivae.resolve_transforms([other, "identity"]) == [other]
