"""Photometric transforms: what they do to known colours, how they compose and commute, and their fits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import equivae
from equivae.operators.runtime import load
from equivae.transforms import transform_table
from models import noise

get = equivae.get_transform
NAMES = [row.name for row in transform_table() if row.group == "photometric"]


def colour(*u: float) -> Tensor:
    return torch.tensor(u).view(1, 3, 1, 1).expand(1, 3, 4, 4) * 2 - 1


def after(name: str, *u: float) -> list[float]:
    return [round(v, 4) for v in ((get(name).pixel(colour(*u)) + 1) / 2)[0, :, 0, 0].tolist()]


def test_known_colours():
    assert after("exposure(factor=0.5)", 0.2, 0.4, 0.8) == [0.1, 0.2, 0.4]
    assert after("brightness(by=0.1)", 0.2, 0.4, 0.8) == [0.3, 0.5, 0.9]
    assert after("contrast(factor=0.5)", 0.2, 0.4, 0.8) == [0.35, 0.45, 0.65]
    assert after("greyscale", 1, 0, 0) == [0.299] * 3
    assert after("saturation(factor=0.5)", 1, 0, 0) == [0.6495, 0.1495, 0.1495]
    assert after("hue(degrees=120)", 0.2, 0.4, 0.8) == [0.8, 0.2, 0.4]
    assert after("gamma(power=2)", 0.2, 0.4, 0.8) == [0.04, 0.16, 0.64]
    assert after("colour_negative", 0.2, 0.4, 0.8) == [0.8, 0.6, 0.2]
    assert after("white_balance(red=0.5,green=1,blue=0.25)", 0.2, 0.4, 0.8) == [0.1, 0.4, 0.2]
    assert after("blur", 0.2, 0.4, 0.8) == after("sharpen", 0.2, 0.4, 0.8) == [0.2, 0.4, 0.8]


@given(
    kind=st.sampled_from(["exposure(factor={})", "contrast(factor={})", "saturation(factor={})"]),
    a=st.floats(0.3, 2),
    b=st.floats(0.3, 2),
)
@settings(max_examples=20, deadline=None)
def test_factors_multiply_when_they_follow_one_another(kind, a, b):
    x = noise(1, 3, 4, 4).double()
    both = get(kind.format(a)) @ get(kind.format(b))
    torch.testing.assert_close(both.pixel(x), get(kind.format(a * b)).pixel(x))
    turned = get(f"hue(degrees={a * 100})") @ get(f"hue(degrees={b * 100})")
    torch.testing.assert_close(turned.pixel(x), get(f"hue(degrees={(a + b) * 100})").pixel(x))


@pytest.mark.parametrize("name", NAMES)
def test_they_commute_with_flips_and_turns(name):
    x, t = noise(1, 3, 12, 8).double(), get(name)
    for move in equivae.get_group("d4"):
        torch.testing.assert_close(t.pixel(move.pixel(x)), move.pixel(t.pixel(x)))
    try:
        back = t.inverse
    except NotImplementedError:
        assert name in ("greyscale", "blur", "sharpen")
        return
    torch.testing.assert_close(back.pixel(t.pixel(x)), x, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(back.inverse.pixel(x), t.pixel(x), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("exposure(factor=0)", "above 0"),
        ("gamma(power=-1)", "above 0"),
        ("blur(sigma=0)", "above 0"),
        ("hue(degrees='x')", "finite numbers"),
    ],
)
def test_bad_parameters(name, word):
    with pytest.raises(equivae.InputError, match=word):
        get(name)


def test_colours_need_three_channels():
    with pytest.raises(equivae.InputError, match="three colours"):
        get("greyscale").pixel(torch.zeros(1, 1, 4, 4))
    assert get("exposure").pixel(torch.zeros(1, 1, 4, 4)).shape == (1, 1, 4, 4)


class UnshuffleAE(nn.Module):
    """Mixes the 12 values of every 2x2 patch by an invertible matrix, so that it loses nothing."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(12, 12, generator=generator) / 4 + torch.eye(12))

    def encode(self, images: Tensor) -> Tensor:
        return torch.einsum("oc,bchw->bohw", self.matrix, F.pixel_unshuffle(images, 2))

    def decode(self, latents: Tensor) -> Tensor:
        patches = torch.einsum("oc,bchw->bohw", torch.linalg.inv(self.matrix), latents)
        return F.pixel_shuffle(patches, 2)


def test_an_inverse_whose_own_inverse_is_written_otherwise_is_fitted():
    t = get("exposure", factor=0.9)
    assert t.inverse.inverse.name != t.name
    made = equivae.fit_latent_op(UnshuffleAE(), t, noise(4, 3, 8, 8), 1, progress=False)
    assert made.inverse.inverse_operator is made.operator


@pytest.mark.parametrize("name", ["exposure", "greyscale", "saturation", "hue", "colour_negative"])
def test_what_is_linear_in_colours_has_an_exact_latent_op(name, tmp_path):
    images, vae = noise(8, 3, 16, 16), UnshuffleAE()
    t = equivae.fit_latent_op(vae, name, images, 1, progress=False)
    assert t.report.latent_error < 1e-3 < 0.1 < t.report.grid_error
    z = vae.encode(noise(1, 3, 8, 8, seed=1)).detach()
    assert load(t.save(tmp_path))(z).equal(t.latent(z))
    decoded = vae.decode(t.latent(z)).detach()
    torch.testing.assert_close(decoded, t.pixel(noise(1, 3, 8, 8, seed=1)), atol=1e-2, rtol=0)
