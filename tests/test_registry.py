"""Registering transforms of one's own, and composing them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import equivae
from equivae import InputError
from equivae.transforms import ComposedTransform
from models import noise


class ShiftRight(equivae.Transform):
    """Moves everything by one place to the right; the first column is not determined."""

    name = "shift_right"

    def pixel(self, x: Tensor) -> Tensor:
        return torch.cat([torch.full_like(x[..., :1], 0.5), x[..., :-1]], -1)

    def latent(self, z: Tensor) -> Tensor:
        return self.pixel(z)

    @property
    def inverse(self) -> equivae.Transform:
        return ShiftLeft()

    def mask(self, x: Tensor) -> Tensor:
        inside = torch.ones(x.shape[-2:], dtype=torch.bool)
        inside[:, 0] = False
        return inside


class ShiftLeft(equivae.Transform):
    name = "shift_left"

    def pixel(self, x: Tensor) -> Tensor:
        return x.roll(-1, -1)

    def latent(self, z: Tensor) -> Tensor:
        return z.roll(-1, -1)

    def mask(self, x: Tensor) -> Tensor:
        inside = torch.ones(x.shape[-2:], dtype=torch.bool)
        inside[:, -1] = False
        return inside


class Negative(equivae.Transform):
    name = "negative"

    def pixel(self, x: Tensor) -> Tensor:
        return -x

    def latent(self, z: Tensor) -> Tensor:
        return -z

    @property
    def inverse(self) -> equivae.Transform:
        return self


class ChannelSwap(Negative):
    name = "channel_swap"

    def pixel(self, x: Tensor) -> Tensor:
        return x[:, [2, 1, 0]]


# Registering --------------------------------------------------------------------------------------


def test_decorator_form():
    @equivae.register_transform("mirror")
    class Mirror(equivae.Transform):
        def pixel(self, x):
            return x.flip(-1)

        def latent(self, z):
            return z.flip(-1)

    t = equivae.get_transform("mirror")
    assert isinstance(t, Mirror)
    assert t.name == "mirror"
    assert "mirror" in equivae.list_transforms()
    assert equivae.resolve_transforms("mirror")[0].name == "mirror"


def test_decorator_form_with_parameters():
    @equivae.register_transform("roll")
    class Roll(equivae.Transform):
        def __init__(self, cells: int = 1) -> None:
            self.cells = cells

        def pixel(self, x):
            return x.roll(self.cells * 2, -1)

        def latent(self, z):
            return z.roll(self.cells, -1)

    assert equivae.get_transform("roll").cells == 1
    assert equivae.get_transform("roll", cells=3).cells == 3
    with pytest.raises(InputError, match=r"'roll' cannot be built: .*pixels"):
        equivae.get_transform("roll", pixels=3)


def test_a_subclass_is_known_by_the_name_it_is_registered_under():
    equivae.register_transform("first_negative")(type("First", (equivae.Transform,), _ops()))
    parent = type(equivae.get_transform("first_negative"))
    equivae.register_transform("second_negative")(type("Second", (parent,), {}))
    assert equivae.get_transform("first_negative").name == "first_negative"
    assert equivae.get_transform("second_negative").name == "second_negative"


def _ops():
    return {"pixel": lambda self, x: -x, "latent": lambda self, z: -z}


def test_function_form():
    made = equivae.register_transform(
        "turn", pixel=lambda x: x.flip((-2, -1)), latent=lambda z: -z, inverse="turn"
    )
    t = equivae.get_transform("turn")
    assert t is made
    assert t.inverse is t
    assert t.mask(noise(1, 3, 4, 4)) is None
    assert not t.swaps_axes
    x = noise(1, 3, 4, 4)
    assert t.pixel(x).equal(x.rot90(2, (-2, -1)))
    assert t.latent(x).equal(-x)


def test_function_form_with_a_separate_inverse_a_mask_and_swapped_axes():
    swap = {"latent": lambda z: z.mT, "swaps_axes": True}
    equivae.register_transform(
        "there", pixel=lambda x: 2 * x.mT, inverse="back", mask=lambda x: x[0, 0].mT > 0, **swap
    )
    equivae.register_transform("back", pixel=lambda x: x.mT / 2, inverse="there", **swap)
    there = equivae.get_transform("there")
    x = noise(1, 3, 4, 6)
    assert there.swaps_axes
    assert there.inverse.name == "back"
    assert there.inverse.pixel(there.pixel(x)).equal(x)
    assert there.mask(x).equal(x[0, 0].mT > 0)


def test_without_an_inverse():
    t = equivae.register_transform("oneway", pixel=torch.relu, latent=torch.relu)
    with pytest.raises(NotImplementedError, match="'oneway' has no inverse"):
        _ = t.inverse


def test_a_taken_name_is_refused_unless_overridden():
    with pytest.raises(InputError, match="'hflip' is registered already"):
        equivae.register_transform("hflip", pixel=torch.neg, latent=torch.neg)
    with pytest.raises(InputError, match="'hflip' is registered already"):
        equivae.register_transform("hflip")
    assert equivae.get_transform("hflip").pixel(torch.tensor([[1, 2]])).tolist() == [[2, 1]]
    equivae.register_transform("hflip", pixel=torch.neg, latent=torch.neg, override=True)
    assert equivae.get_transform("hflip").pixel(torch.tensor([[1, 2]])).tolist() == [[-1, -2]]


@pytest.mark.parametrize(
    "name", ["", "Flip", "my-flip", "9lives", "a b", "rot180,hflip", "a@b", "x\n"]
)
def test_malformed_names_are_refused(name):
    with pytest.raises(InputError, match="cannot be used"):
        equivae.register_transform(name, pixel=torch.neg, latent=torch.neg)


def test_half_a_pair_is_refused():
    with pytest.raises(InputError, match="without a latent op"):
        equivae.register_transform("half", pixel=torch.neg)
    with pytest.raises(InputError, match="without a pixel op"):
        equivae.register_transform("half", latent=torch.neg)
    assert "half" not in equivae.list_transforms()


def test_only_transforms_can_be_decorated():
    with pytest.raises(InputError, match=r"decorates subclasses of equivae\.Transform"):
        equivae.register_transform("function")(lambda x: x)


def test_unknown_names_get_the_nearest():
    with pytest.raises(InputError, match=r"unknown transform 'rot18'\. Did you mean 'rot180'"):
        equivae.get_transform("rot18")
    with pytest.raises(InputError, match=r"unknown transform 'zzzz'\. Known: .*hflip.*rot180"):
        equivae.get_transform("zzzz")


def test_fixed_transforms_take_no_parameters():
    with pytest.raises(InputError, match="'rot180' cannot be built"):
        equivae.get_transform("rot180", angle=3)


def test_names_are_listed_in_natural_order():
    equivae.register_transform("rot5", pixel=torch.neg, latent=torch.neg)
    listed = equivae.list_transforms()
    places = [
        listed.index(name) for name in ("hflip", "rot5", "rot90", "rot180", "rot270", "vflip")
    ]
    assert places == sorted(places)


# Composing ----------------------------------------------------------------------------------------


def test_composition_with_a_transform_of_ones_own():
    x, rot90 = noise(2, 3, 4, 6), equivae.get_transform("rot90")
    t = Negative() @ rot90
    assert isinstance(t, ComposedTransform)
    assert t.name == "negative@rot90"
    assert t.swaps_axes
    assert not (rot90 @ t).swaps_axes
    assert t.pixel(x).equal(-rot90.pixel(x))
    assert t.inverse.pixel(t.pixel(x)).equal(x)
    assert t.pixel(t.inverse.pixel(x)).equal(x)
    assert t.inverse.latent(t.latent(x)).equal(x)
    assert t.mask(x) is None


def test_composition_is_refused_with_anything_else():
    with pytest.raises(TypeError):
        Negative() @ 3
    with pytest.raises(TypeError):
        equivae.get_transform("rot90") @ "hflip"


def test_composition_draws_both_parts():
    class Random(Negative):
        name = "random"

        def draw(self, batch_size, generator=None):
            chosen = Random()
            chosen.number = torch.rand((), generator=generator)
            return chosen

    generator = torch.Generator().manual_seed(0)
    drawn = (Random() @ Random()).draw(2, generator)
    numbers = torch.rand(2, generator=torch.Generator().manual_seed(0))
    assert drawn.inner.number == numbers[0]
    assert drawn.outer.number == numbers[1]


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_the_mask_of_the_inner_moves_with_the_outer(rank):
    x = noise(2, 3, 4, 6)[(0,) * (4 - rank)]
    shift = ShiftRight()
    assert (shift @ equivae.get_transform("rot180")).mask(x).equal(shift.mask(x))
    turned = (equivae.get_transform("rot90") @ shift).mask(x)
    assert turned.equal(shift.mask(x).rot90())
    assert (~turned).sum() == 4


def test_masks_of_both_parts_meet():
    x = noise(1, 3, 4, 6)
    mask = (ShiftRight() @ ShiftRight()).mask(x)[0, 0]
    assert (~mask).nonzero()[:, 1].unique().tolist() == [0, 1]
    # To the right and back: what fell off at the right is gone, the rest is as it was.
    t = ShiftRight().inverse @ ShiftRight()
    mask = t.mask(x)[0, 0]
    assert (~mask).nonzero()[:, 1].unique().tolist() == [5]
    assert t.pixel(x)[..., mask].equal(x[..., mask])


@pytest.mark.parametrize("outer", [Negative(), ChannelSwap()])
def test_the_mask_survives_an_outer_op_on_values(outer):
    x = noise(1, 3, 4, 6)
    assert (outer @ ShiftRight()).mask(x)[0, 0].equal(ShiftRight().mask(x))
