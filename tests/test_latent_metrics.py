"""Numbers of the latent space, each on a case whose value is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn

import equivae
from equivae.autoencoder import Autoencoder
from equivae.evaluation.latent_metrics import LATENT_METRICS, chosen, flat_field
from equivae.evaluation.latent_metrics.cds import correlation_decay
from equivae.evaluation.latent_metrics.condition import condition_number
from equivae.evaluation.latent_metrics.effective_rank import effective_rank
from equivae.evaluation.latent_metrics.energy import energy_above
from equivae.evaluation.latent_metrics.kurtosis import excess_kurtosis
from equivae.evaluation.latent_metrics.lanczos import lanczos_shift
from equivae.evaluation.latent_metrics.lds import local_vs_distant
from equivae.evaluation.latent_metrics.lie import FIELDS, lie_derivative, lie_error
from equivae.evaluation.latent_metrics.rotation import rotation_errors
from equivae.evaluation.latent_metrics.shift import fourier_shift, masked_psnr, shift_psnr
from equivae.evaluation.latent_metrics.translation import translation_errors
from equivae.evaluation.latent_metrics.turning import rotate
from equivae.evaluation.latent_metrics.volume import volume_ratio
from equivae.evaluation.latent_metrics.window_correlation import window_correlation
from equivae.evaluation.latents import LatentSums
from equivae.evaluation.roundtrip import reconstruct
from equivae.evaluation.spectrum import block_energy, profile_of
from models import ConvAE, PoolAE, cells, noise


class Same(nn.Module):
    """Latents that are the images; `gain` in the left half of the decode, which no move leaves in place."""

    def __init__(self, gain: float = 0.0) -> None:
        super().__init__()
        self.gain = gain

    def encode(self, images):
        return images * 1.0

    def decode(self, latents):
        left = torch.arange(latents.shape[-1]) < latents.shape[-1] // 2
        return latents + self.gain * left.to(latents.dtype)


def trip(module, x):
    vae = Autoencoder(module)
    with torch.no_grad():
        return vae, reconstruct(vae, x)


def waves(side: int, period: float = 8.0) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    wave = torch.sin(2 * math.pi * x / period) + torch.cos(2 * math.pi * y / period)
    return (0.3 * wave).expand(1, 3, -1, -1).contiguous()


def test_every_metric_says_what_it_is():
    for name, one in LATENT_METRICS.items():
        assert name == one.name
        assert all((one.label, one.formula, one.source, one.direction)), name
    assert set(chosen("fast")) < set(chosen("paper")) < set(chosen("all")) == set(LATENT_METRICS)


def test_energy_above_a_frequency():
    def wave(u: int, v: int) -> np.ndarray:
        block = np.zeros((8, 8))
        block[u, v] = 1.0
        return scipy.fft.idctn(block, norm="ortho")

    low, high, constant = wave(1, 2), wave(7, 5), wave(0, 0)
    grid = torch.from_numpy(np.tile(3 * low + high + 9 * constant, (2, 3)))[None, None]
    assert energy_above(grid).tolist() == pytest.approx([1 / 10])
    assert energy_above(grid, threshold=0.1).tolist() == pytest.approx([1.0])
    assert energy_above(torch.ones(1, 2, 8, 8)).tolist() == [0.0]


def test_profile_is_in_the_order_of_jpeg():
    energy = torch.zeros(4, 4, dtype=torch.float64)
    for place, at in enumerate([(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3)]):
        energy[at] = (4.0 / 2**place) ** 2
    assert profile_of(energy)[:7] == pytest.approx([1 / 2**i for i in range(7)])
    smooth = profile_of(block_energy(waves(32, 32)))
    assert smooth[1] > 100 * smooth[-1]


def test_moments_of_channels():
    covariance = torch.diag(torch.tensor([9.0, 1.0], dtype=torch.float64))
    # Singular values 3 and 1: shares 3/4 and 1/4.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(covariance) == pytest.approx(math.exp(entropy))
    assert condition_number(covariance) == pytest.approx(9)
    assert volume_ratio(covariance) == pytest.approx(3 / 5)
    ball = torch.eye(5, dtype=torch.float64)
    assert (effective_rank(ball), volume_ratio(ball)) == pytest.approx((5, 1))
    plane = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert (effective_rank(plane), condition_number(plane)) == (pytest.approx(1), math.inf)
    assert volume_ratio(plane) == 0
    assert math.isnan(condition_number(torch.zeros(2, 2, dtype=torch.float64)))


def test_kurtosis_is_scipys():
    z = noise(2, 3, 16, 16) ** 3 + 5.0
    sums = LatentSums()
    sums.add(noise(2, 3, 16, 16), z)
    flat = z.transpose(0, 1).flatten(1).double().numpy()
    expected = scipy.stats.kurtosis(flat, axis=1).mean()
    assert excess_kurtosis(*sums.moments()) == pytest.approx(expected, rel=1e-6)
    signs = torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 4, 4)
    coins = LatentSums()
    coins.add(signs, signs)
    assert excess_kurtosis(*coins.moments()) == pytest.approx(-2)


def pairs_of(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and Manhattan distances of all pairs of cells, the long way."""
    height, width = z.shape[-2:]
    tokens = F.normalize(z[0].flatten(1).T, dim=1)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()], 1)
    return tokens @ tokens.T, (places[:, None] - places).abs().sum(-1)


def test_lds_and_cds_are_those_of_all_pairs():
    z = F.avg_pool2d(noise(1, 4, 13, 11), 3, 1)
    cosines, distance = pairs_of(z)
    near, far = cosines[distance == 1].mean(), cosines[distance >= 6].mean()
    assert float(local_vs_distant(z)) == pytest.approx(float(near - far), abs=1e-6)
    means = [float(cosines[distance == d].mean()) for d in range(1, 9)]
    slope = np.polyfit(range(1, 9), means, 1)[0]
    assert float(correlation_decay(z)) == pytest.approx(-slope, abs=1e-6)
    alike = torch.ones(1, 4, 8, 8)
    assert float(local_vs_distant(alike)) == pytest.approx(0, abs=1e-9)
    assert float(correlation_decay(alike)) == pytest.approx(0, abs=1e-9)
    assert local_vs_distant(torch.ones(1, 4, 2, 2)) is None


def test_window_correlation():
    vectors = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1, 1)
    assert float(window_correlation(vectors.expand(-1, -1, 4, 4))) == pytest.approx(1)
    checkers = (-1.0) ** (torch.arange(4)[:, None] + torch.arange(4))
    # Four pairs of a window disagree, the two diagonal ones agree.
    assert float(window_correlation(vectors * checkers)) == pytest.approx(-1 / 3)
    assert abs(float(window_correlation(noise(1, 64, 32, 32)))) < 0.02
    assert window_correlation(torch.ones(1, 1, 4, 4)) is None


def test_lanczos_moves_whole_cells_exactly_and_waves_closely():
    grid = noise(1, 2, 16, 16)[0]
    moved, known = lanczos_shift(grid, 2.0, -1.0)
    assert torch.allclose(moved[:, known], grid.roll((2, -1), (-2, -1))[:, known], atol=1e-6)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    wave, known = lanczos_shift(torch.sin(x / 4) * torch.cos(y / 5), 0.3, 0.6)
    expected = torch.sin((x - 0.6) / 4) * torch.cos((y - 0.3) / 5)
    assert float((wave - expected)[known].abs().max()) < 0.01


def test_eq_t_of_a_decoder_with_a_known_defect():
    x = waves(64)
    assert float(translation_errors(*trip(Same(), x), [0])) < 1e-9
    vae, batch = trip(Same(gain=0.1), x)
    seed = next(s for s in range(99) if _shift_of(s)[1] > 2)
    right = _shift_of(seed)[1]
    # Of the columns that are known, `right` are in one left half and not in the other.
    share = right / (64 - right - 3)
    error = float(translation_errors(vae, batch, [seed]))
    assert error == pytest.approx(0.1**2 / 4 * share, rel=1e-3)


def _shift_of(seed: int) -> list[int]:
    share = torch.rand(2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return [round(float(s) * 0.125 * 64) for s in share]


def test_rotation_is_that_of_a_wave():
    angle, side = 0.7, 64
    x = torch.arange(side) - (side - 1) / 2
    y, x = torch.meshgrid(x, x, indexing="ij")
    wave = torch.sin(x / 3)
    turned, known = rotate(wave[None], angle)
    # A quarter turn is the lattice's own, counterclockwise.
    expected = torch.sin((math.cos(angle) * x - math.sin(angle) * y) / 3)
    assert int(known.sum()) > 1000
    assert float((turned[0] - expected)[known].abs().max()) < 0.03
    quarter, inside = rotate(noise(1, 1, 32, 32)[0], math.pi / 2)
    assert torch.isfinite(quarter).all()
    assert bool(inside.any())


def test_eq_r_of_an_equivariant_decoder_and_of_another():
    x = waves(64, 16)
    good = float(rotation_errors(*trip(Same(), x), [1]))
    bad = float(rotation_errors(*trip(Same(gain=0.2), x), [1]))
    assert good < 1e-4
    assert 1e-3 < bad < 0.2**2 / 4
    assert rotation_errors(*trip(Same(), x[..., :8, :8]), [1]) is None


def test_shift_psnr():
    a = torch.zeros(1, 1, 2, 2)
    a[0, 0, 0, 0] = 3.0
    # The range is 3 - (-1), the mean error 1.
    b = a - 1
    assert masked_psnr(a, b).tolist() == pytest.approx([10 * math.log10(16)])
    wave = waves(32)
    moved = fourier_shift(wave, 0.5, 0.25)
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    expected = torch.sin(math.pi * (x - 0.25) / 4) + torch.cos(math.pi * (y - 0.5) / 4)
    assert torch.allclose(moved[0, 0], 0.3 * expected, atol=1e-5)
    assert shift_psnr(*trip(Same(), wave), [0]) is None  # no moves below a cell
    found = shift_psnr(*trip(PoolAE(), wave), [3])
    assert 5 < float(found) < 60


def test_lie_derivative_of_a_gain():
    # D(z) = g z with a gain g(x, y): L D(z) = z (v . grad g), here with g = 1 + a x.
    slope, side = 0.01, 24

    class Sloped(Same):
        def decode(self, latents):
            x = torch.arange(latents.shape[-1]) - (latents.shape[-1] - 1) / 2
            return latents * (1 + slope * x)

    x = torch.full((1, 3, side, side), 0.5)
    vae, batch = trip(Sloped(), x)
    (scale,) = FIELDS["scale"]
    found = lie_derivative(vae, batch.z, batch.output, scale)
    place = torch.arange(side) - (side - 1) / 2
    expected = (0.5 * slope * place).expand_as(found)
    assert torch.allclose(found[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-4)
    inside = expected[..., 2:-2, 2:-2] / 2
    error = lie_error("scale", vae, batch, [0])
    assert float(error) == pytest.approx(float(inside.square().mean()), rel=1e-2)
    shift = lie_error("shift", vae, batch, [0])  # the whole side right, nothing down
    assert float(shift) == pytest.approx((0.5 * slope * side / 2) ** 2 / 2, rel=1e-2)
    for name in FIELDS:
        assert float(lie_error(name, *trip(Same(), noise(1, 3, 16, 16)), [0])) < 1e-6


class Rimmed(PoolAE):
    """A checkerboard that repeats with every cell, and a lighter border of one cell."""

    def decode(self, latents):
        images = super().decode(latents)
        images[..., ::2, ::2] += 0.04
        rim = torch.ones(images.shape[-2:], dtype=torch.bool)
        rim[2:-2, 2:-2] = False
        images[..., rim] = images[..., rim] + 0.2
        return images


def test_flat_field_finds_grids_and_borders():
    with torch.no_grad():
        plain = flat_field(Autoencoder(PoolAE()), 16, 16)
        found = flat_field(Autoencoder(Rimmed()), 16, 16)
    assert (plain.error, plain.grid, plain.border) == pytest.approx((0, 0, 0), abs=1e-7)
    # One pixel of a cell 0.02 above the others in [0, 1]: its deviations are 0.015 and three times -0.005.
    grid = math.sqrt((0.015**2 + 3 * 0.005**2) / 4)
    assert found.grid == pytest.approx(grid, rel=1e-5)
    assert found.border == pytest.approx(math.hypot(0.1, grid), rel=1e-5)
    assert found.pictures.shape == (5, 3, 16, 16)


def test_levels_and_batches():
    x = noise(5, 3, 64, 64, scale=0.5)

    def numbers(level, size):
        options = {"sweep_samples": 0, "panels": 0, "progress": False, "transforms": "rot180"}
        return equivae.evaluate(ConvAE(), x, metrics=level, eval_batch_size=size, **options).metrics

    whole, parts = numbers("all", 5), numbers("all", 2)
    assert set(whole.latent_metrics) == set(LATENT_METRICS)
    assert whole.latent_metrics == pytest.approx(parts.latent_metrics, rel=1e-4)
    fast = numbers("fast", 5)
    assert set(fast.latent_metrics) == set(chosen("fast"))
    assert whole.spreads["latent/eq_t"].value == pytest.approx(whole.latent_metrics["eq_t"])
    assert whole.non_finite == {}


def test_what_is_too_small_for_a_number_has_none():
    found = equivae.evaluate(
        PoolAE(), cells(2, 8, 8), metrics="all", sweep_samples=0, panels=0, progress=False
    ).metrics
    assert {"sec", "window_correlation", "flat_field_grid"} <= set(found.latent_metrics)
    assert not {"eq_t", "eq_r"} & set(found.latent_metrics)
    assert found.latent_metrics["flat_field_error"] == pytest.approx(0, abs=1e-7)
