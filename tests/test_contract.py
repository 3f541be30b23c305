"""`check_transform`: it passes over every registered transform, and every law catches a broken one."""

import builtins

import pytest
import torch
import torch.nn.functional as F

import equivae
from equivae.testing import LAWS, ContractError, check_transform

get = equivae.get_transform


@pytest.mark.parametrize("name", equivae.list_transforms())
def test_every_registered_transform_keeps_the_contract(name):
    check_transform(name, factor=4, max_examples=4)


@pytest.mark.parametrize(
    "text",
    [
        "rotate(angle=-140,interpolation='bicubic',padding_mode='reflection')",
        "translate(cells=(1.5,-0.25),padding_mode='circular')",
        "zoom(factor=2.5,y=0,x=1,anisotropy=1.3)",
        "scale(factor=(1.5,0.75),interpolation='nearest')",
        "fractional_shift(y=-1.375,x=0,cyclic=True)",
        "choice(of='hflip,shift(y=1,x=2)',same_on_batch=False)",
        "compose(of='crop,rotate(angle=45),hflip')",
    ],
)
def test_parameters_do_not_break_the_contract(text):
    check_transform(text, factor=4, max_examples=3)


def test_other_factors_and_channels():
    check_transform("crop", factor=4, image_channels=1, latent_channels=16, max_examples=3)
    check_transform("signed_hflip", factor=16, latent_channels=32, laws=["shape", "inverse"])


# One broken transform for each law -----------------------------------------------------------------


class Base(equivae.Transform):
    """Turns by 180 degrees; the subclasses break it, one law each."""

    name = "broken"

    def pixel(self, x):
        return x.flip((-2, -1))

    def latent(self, z):
        return z.flip((-2, -1))

    @property
    def inverse(self):
        return self


class Shape(Base):
    def latent(self, z):
        return z[..., :-1]


class Channels(Base):
    def latent(self, z):
        return z[:, :1]


class Swaps(Base):
    swaps_axes = True


class Dtype(Base):
    def latent(self, z):
        return z.float().flip((-2, -1))


class Device(Base):
    def latent(self, z):
        return z.flip((-2, -1)) * torch.ones(4, 1, 1, dtype=z.dtype)


class MaskType(Base):
    def mask(self, x):
        return torch.ones(x.shape[-2:])


class MaskShape(Base):
    def mask(self, x):
        return torch.ones(x.shape[-2] + 1, x.shape[-1], dtype=torch.bool)


class Noise(Base):
    def pixel(self, x):
        return x + torch.rand((), dtype=torch.float64).to(x)


class NoGradient(Base):
    def latent(self, z):
        return z.detach().flip((-2, -1))


class HalfGradient(Base):
    def pixel(self, x):
        return x.flip((-2, -1)) + (0.5 * x - 0.5 * x.detach())


class WrongInverse(Base):
    def pixel(self, x):
        return x.roll(8, -1)

    def latent(self, z):
        return z.roll(1, -1)


class LatentInverse(Base):
    def latent(self, z):
        return 2 * z.flip((-2, -1))


class Leaks(Base):
    def latent(self, z):
        return z.flip((-2, -1)) + z.mean(0)

    @property
    def inverse(self):
        raise NotImplementedError


class OtherGrid(Base):
    def latent(self, z):
        return z.flip(-1)


class HalfCell(Base):
    """Moves pixels by half a cell and latents not at all."""

    def pixel(self, x):
        return x.roll(4, -1)

    def latent(self, z):
        return z

    @property
    def inverse(self):
        raise NotImplementedError


class Affine(Base):
    """Says that it is linear, and adds a little to the latent."""

    linear = True

    def latent(self, z):
        return z.flip((-2, -1)) + 0.1

    @property
    def inverse(self):
        raise NotImplementedError


class GraphBreak(Base):
    def latent(self, z):
        if z.sum().item() > 1e9:
            return z
        return z.flip((-2, -1))


class Raises(Base):
    def latent(self, z):
        return z.flip((-2, -1)).view(-1, 7)


@pytest.mark.parametrize(
    ("broken", "law", "words"),
    [
        (Shape, "shape", "cells"),
        (Channels, "shape", "latent op returns the shape"),
        (Swaps, "shape", "swaps_axes"),
        (Dtype, "dtype", "latent op turns torch.float64 into torch.float32"),
        (Device, "device", "latent op|raises"),
        (MaskType, "mask", "not bool"),
        (MaskShape, "mask", "shape"),
        (Noise, "determinism", "two results"),
        (NoGradient, "gradient", "latent op"),
        (HalfGradient, "gradient", "pixel op is not that"),
        (WrongInverse, "inverse", "does not undo its pixel op"),
        (LatentInverse, "inverse", "does not undo its latent op"),
        (Leaks, "batch independence", "one sample"),
        (OtherGrid, "factor", "its pixels go"),
        (HalfCell, "factor", "its pixels go"),
        (Affine, "linearity", "latent op is not linear"),
        (GraphBreak, "compile", "breaks the graph of its latent op"),
        (Raises, "shape", "raises RuntimeError"),
    ],
)
def test_each_law_catches_a_broken_transform(broken, law, words):
    with pytest.raises(ContractError, match=words) as caught:
        check_transform(broken(), laws=[law])
    assert caught.value.law == law
    message = str(caught.value)
    assert message.startswith(f"transform 'broken' breaks the {law} law: ")
    assert message.endswith(".")
    assert "\n" not in message
    check_transform(Base(), laws=[law])


@pytest.mark.parametrize("block", [3, 8])
def test_blocks_are_tried_whole_and_still_have_to_go_where_their_pixels_go(block):
    class Blocks(Base):
        def pixel(self, x):
            assert x.shape[-2] % block == x.shape[-1] % block == 0
            return x.flip((-2, -1))

        def latent(self, z):
            assert z.shape[-2] % block == z.shape[-1] % block == 0
            return z.flip((-2, -1))

    class OtherBlocks(OtherGrid):
        pass

    Blocks.block = OtherBlocks.block = block
    check_transform(Blocks(), factor=2, laws=["shape", "inverse", "factor"], max_examples=3)
    with pytest.raises(ContractError, match="its pixels go"):
        check_transform(OtherBlocks(), factor=2, laws=["factor"])
    for whole in (Blocks() @ Base(), equivae.transforms.Choice([Base(), Blocks()], "either")):
        assert whole.block == block


@pytest.mark.parametrize("broken", [Shape, Dtype, Noise, WrongInverse, OtherGrid, Raises, Leaks])
def test_the_whole_check_catches_it_too(broken):
    with pytest.raises(ContractError):
        check_transform(broken(), max_examples=5)


def test_all_laws_have_a_broken_transform():
    marks = test_each_law_catches_a_broken_transform.pytestmark
    assert {law for _, law, _ in marks[0].args[1]} == set(LAWS)


def test_the_input_is_shrunk():
    class OnlyLarge(Base):
        def latent(self, z):
            return z.flip(-1) if z.shape[-1] >= 3 else z.flip((-2, -1))

    with pytest.raises(ContractError, match=r"on 1 image of 3x16x24 \(latents 4x2x3\), seed 0"):
        check_transform(OnlyLarge(), laws=["inverse", "factor"], max_examples=50)


def test_a_resampled_inverse_in_the_wrong_direction_is_caught():
    class Wrong(type(get("rotate"))):
        @property
        def inverse(self):
            return self

    with pytest.raises(ContractError, match="does not undo"):
        check_transform(Wrong(angle=20.0), laws=["inverse"])


def test_a_mask_is_what_saves_a_resampled_inverse():
    class Unmasked(type(get("translate"))):
        def mask(self, x):
            return None

        def carry_mask(self, x, valid):
            return valid

    with pytest.raises(ContractError, match="does not undo"):
        check_transform(Unmasked(y=0.3, x=0.3), laws=["inverse"])


def test_a_resampled_pair_on_corner_aligned_grids_is_caught_by_theory_not_by_the_factor_law():
    """A known limit: the factor law allows interpolation one cell; test_resampled measures finer."""

    class Corners(equivae.Transform):
        name = "corners"
        exact = False

        def pixel(self, x):
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

        def latent(self, z):
            return F.interpolate(z, scale_factor=2, mode="bilinear", align_corners=True)

    check_transform(Corners(), laws=["factor"], max_examples=3)


def test_unknown_laws_are_named():
    with pytest.raises(equivae.InputError, match="Did you mean 'inverse'"):
        check_transform("rot90", laws=["invers"])


def test_without_hypothesis_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "hypothesis":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(equivae.InputError, match="pip install hypothesis"):
        check_transform("rot90")


def test_random_state_is_left_alone():
    before = torch.get_rng_state()
    check_transform("random_affine", max_examples=2)
    assert torch.equal(before, torch.get_rng_state())
