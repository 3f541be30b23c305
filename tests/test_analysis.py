"""`analyze_latents`: numbers that can be known beforehand, the recommendation, and the picture."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import equivae
from equivae.evaluation.spectrum import block_energy, spectrum_of


class SignAE(nn.Module):
    """Keeps 2x2 patches: their mean, and their left-right, up-down and diagonal differences.

    Under hflip the left-right and the diagonal differences change their sign; under rot180 the left-right
    and the up-down ones do. The channels are red, green and blue's four values in that order.
    """

    signs = torch.tensor(
        [[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    )  # a Haar wavelet; patches are (upper left, upper right, lower left, lower right)

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(self.signs / 2)

    def encode(self, images: Tensor) -> Tensor:
        patches = F.pixel_unshuffle(images, 2).unflatten(1, (3, 4))
        return torch.einsum("oc,bnchw->bnohw", self.matrix, patches).flatten(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        patches = torch.einsum("oc,bnohw->bnchw", self.matrix, latents.unflatten(1, (3, 4)))
        return F.pixel_shuffle(patches.flatten(1, 2), 2)


class PoolAE(nn.Module):
    """Equivariant already, and not lossless."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def encode(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 2) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents, scale_factor=2.0) / self.scale


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def analyze(vae, images, transforms="rot180", **options):
    return equivae.analyze_latents(vae, images, transforms, progress=False, **options)


def test_signs_and_channels_of_a_haar_wavelet():
    found = analyze(SignAE(), noise(12, 3, 16, 16), ["rot180", "hflip", "rot90"])
    for name, flipped in (("rot180", [1, 2]), ("hflip", [1, 3])):
        one = found.transforms[name]
        assert (one.signature.positive, one.signature.negative) == (6, 6)
        assert one.signature.residual < 1e-3
        for channel in range(12):
            # A flipped sign is off by twice the channel's own size, a kept one not at all.
            expected = 2.0 if channel % 4 in flipped else 0.0
            assert one.channel_grid_errors[channel] == pytest.approx(expected, abs=0.05)
        assert max(one.channel_fitted_errors) < 1e-3
        assert one.fitted_errors[1] < 1e-3 < one.grid_error
        assert "fitted 1x1 operator is enough" in one.recommendation
    assert found.transforms["rot90"].signature is None


def test_an_equivariant_vae_needs_nothing():
    one = analyze(PoolAE(), noise(8, 3, 16, 16)).transforms["rot180"]
    assert one.grid_error < 1e-3  # float32 rounding, see PatchRegression
    assert "nothing is needed" in one.recommendation


def test_decoded_psnr_of_the_grid_move_is_that_of_evaluate():
    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(8, 32)
    found = analyze(vae, images, validation_split=0.25)
    held_out = equivae.data.load_images(images).split(0.25, 0)[1]
    report = equivae.evaluate(vae, held_out, "rot180", progress=False).metrics
    one = found.transforms["rot180"]
    assert found.reconstruction_psnr == pytest.approx(report.reconstruction_psnr, abs=1e-3)
    assert one.grid_psnr == pytest.approx(report.transforms["rot180"].round_trip_psnr, abs=1e-3)


def test_the_spectrum_of_a_cosine_is_its_band_and_that_of_noise_is_flat():
    place = torch.arange(16.0).double() + 0.5
    wave = torch.cos(math.pi / 8 * 3 * place).expand(1, 1, 16, 16)
    assert spectrum_of(block_energy(wave))[2] == pytest.approx(1.0)
    flat = spectrum_of(block_energy(noise(64, 3, 32, 32)))
    assert sum(flat) == pytest.approx(1.0)
    assert all(v == pytest.approx(1 / 14, rel=0.1) for v in flat)


def test_it_is_saved_with_a_picture(tmp_path):
    found = analyze(SignAE(), noise(4, 3, 8, 8), ["rot180", "rot90"])
    found.save(tmp_path / "a")
    content = json.loads((tmp_path / "a" / "analysis.json").read_text())
    assert content["transforms"]["rot180"]["grid_error"] == found.transforms["rot180"].grid_error
    assert "| rot180 |" in (tmp_path / "a" / "analysis.md").read_text()
    with Image.open(tmp_path / "a" / "analysis.png") as picture:
        assert min(picture.size) > 500


@pytest.mark.parametrize(
    ("images", "transforms", "word"),
    [
        (noise(1, 3, 16, 16), "rot180", "two images"),
        (noise(2, 3, 16, 16), "rot18", "rot180"),
        (noise(2, 3, 16, 16), "identity", "identity"),
        (noise(2, 3, 15, 16), "rot180", "factor"),
    ],
)
def test_bad_input(images, transforms, word):
    with pytest.raises(equivae.InputError, match=word):
        analyze(SignAE(), images, transforms)
