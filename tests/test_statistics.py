"""Medians, worst images, bootstrap intervals, and statistics of latents with answers known by hand."""

from __future__ import annotations

import math

import hypothesis
import hypothesis.strategies
import numpy as np
import pytest
import scipy.stats
import torch

from equivae.evaluation.latents import LatentSums, relative_drift
from equivae.evaluation.quantities import quantities
from equivae.evaluation.statistics import Resampling, difference_of, psnr_of
from interval_coverage import coverage
from models import noise


def plain(means):
    return means[..., 0]


def names(count: int) -> list[str]:
    return [f"{i}.png" for i in range(count)]


def test_the_spread_of_a_few_numbers():
    resampling = Resampling(names(4), {"x": [0.1, 0.4, 0.2, 0.9]}, seed=0)
    low = resampling.spread(["x"], plain, larger_is_better=False)
    assert (low.value, low.median, low.worst) == pytest.approx((0.4, 0.3, 0.9))
    assert low.worst_image == "3.png"
    high = resampling.spread(["x"], plain, larger_is_better=True)
    assert (high.worst, high.worst_image) == (0.1, "0.png")


def test_the_interval_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(5, 2, 400)
    spread = Resampling(names(400), {"x": values.tolist()}, seed=1).spread(
        ["x"], plain, larger_is_better=True
    )
    half = 1.96 * values.std() / math.sqrt(400)
    assert spread.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert spread.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_one_seed_one_interval():
    columns = {"x": np.random.default_rng(0).random(20).tolist()}

    def interval(seed):
        spread = Resampling(names(20), columns, seed).spread(["x"], plain, larger_is_better=True)
        return spread.low, spread.high

    assert interval(0) == interval(0)
    assert interval(0) != interval(1)


def test_differences_are_paired():
    # Both errors vary by a factor of a hundred, their ratio not at all.
    errors = np.geomspace(1e-4, 1e-2, 30)
    columns = {"a": errors.tolist(), "b": (2 * errors).tolist()}
    spread = Resampling(names(30), columns, 0).spread(
        ["a", "b"], lambda m: psnr_of(m[..., 0]) - psnr_of(m[..., 1]), larger_is_better=False
    )
    ratio = 10 * math.log10(2)
    for value in (spread.value, spread.median, spread.low, spread.high, spread.worst):
        assert value == pytest.approx(ratio)


def test_perfect_images():
    resampling = Resampling(names(3), {"x": [0.0, 0.0, 0.0]}, 0)
    peak = resampling.spread(["x"], lambda m: psnr_of(m[..., 0]), larger_is_better=True)
    assert (peak.value, peak.median, peak.low, peak.high) == (math.inf,) * 4
    gap = resampling.spread(
        ["x", "x"],
        lambda m: difference_of(psnr_of(m[..., 0]), psnr_of(m[..., 1])),
        larger_is_better=False,
    )
    assert (gap.value, gap.low, gap.high, gap.worst) == (0, 0, 0, 0)


@pytest.mark.parametrize(("count", "least"), [(4, 0.88), (24, 0.90)])
def test_intervals_cover_the_truth(count, least):
    """95% of the percentile interval covered 72% with 4 images and 89% with 24; see the benchmark."""
    covered, runs = coverage("psnr", count, runs=150, seed=3)
    assert covered / runs >= least


ERROR = hypothesis.strategies.floats(-12, 0).map(lambda exponent: 10**exponent)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    hypothesis.strategies.lists(hypothesis.strategies.tuples(ERROR, ERROR), min_size=2, max_size=12)
)
def test_an_interval_stays_within_what_can_be_attained(pairs):
    """The mean of positive errors is known to no worse than itself, which is 4.34 dB a standard error."""
    first, second = zip(*pairs, strict=True)
    columns = {
        "reconstruction_mse": first,
        "reconstruction_mse/t": first,
        "round_trip_mse/t": second,
    }
    resampling = Resampling(names(len(pairs)), columns, 0)
    t = scipy.stats.t.ppf(0.975, len(pairs) - 1)
    error = 10 / math.log(10)
    for one, errors in (("reconstruction_psnr", 1), ("equivariance_gap_db/t", 2)):
        (asked,) = [q for q in quantities(columns, ["t"]) if q.key == one]
        found = resampling.spread(
            asked.columns,
            asked.number,
            larger_is_better=asked.larger_is_better,
            within=asked.within,
        )
        assert found.low <= found.value + 1e-9
        assert found.value <= found.high + 1e-9
        farthest = (1.5 if len(pairs) > 3 else 1) * t * error * errors * 1.01 + 1e-9
        assert found.value - farthest <= found.low
        assert found.high <= found.value + farthest
        if errors == 1:
            assert found.low >= 0  # errors in [0, 1] have no PSNR below 0 dB


def test_a_resample_of_nearly_one_image_puts_no_end_hundreds_of_db_away():
    """Three alike images beside a better one: 11.60 to 2054.93 dB before."""
    columns = {"x": [0.0622, 0.0623, 0.06221, 0.0312]}
    found = Resampling(names(4), columns, 0).spread(
        ["x"], lambda m: psnr_of(m[..., 0]), larger_is_better=True
    )
    assert found.value - 6 < found.low < found.value < found.high < found.value + 6


def test_intervals_of_few_images_and_of_alike_ones():
    def interval(values):
        found = Resampling(names(len(values)), {"x": values}, 0).spread(
            ["x"], plain, larger_is_better=True, within=(0.0, 1.0)
        )
        return found.low, found.high

    assert interval([0.5, 0.5, 0.5, 0.5]) == (0.5, 0.5)
    assert interval([0.2, 0.6]) == (0.0, 1.0)  # two say next to nothing
    low, high = interval([0.4, 0.5, 0.6])  # Student's t: 0.5 ± 4.303 * 0.1 / sqrt(3)
    assert (low, high) == pytest.approx((0.5 - 0.2484, 0.5 + 0.2484), abs=1e-3)


def test_intervals_where_some_images_are_perfect():
    resampling = Resampling(names(6), {"x": [0.0, 0.0, 0.0, 0.01, 0.02, 0.01]}, 0)
    found = resampling.spread(["x"], lambda m: psnr_of(m[..., 0]), larger_is_better=True)
    assert found.median > found.value
    assert found.low < found.value < found.high


def test_very_many_images_have_percentiles():
    values = np.random.default_rng(0).exponential(1, 5000)
    found = Resampling(names(5000), {"x": values.tolist()}, 1).spread(
        ["x"], plain, larger_is_better=True
    )
    half = 1.96 / math.sqrt(5000)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)


def test_one_image_has_no_interval():
    spread = Resampling(["a"], {"x": [0.3]}, 0).spread(["x"], plain, larger_is_better=True)
    assert spread.low == spread.high == spread.value == 0.3


def statistics(z: torch.Tensor):
    sums = LatentSums()
    sums.add(z[:, :1], z)
    return sums.statistics([])


def test_effective_dimension():
    z = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert statistics(z).effective_dimension == pytest.approx(4, abs=0.02)
    assert statistics(z[:, :1].expand(-1, 4, -1, -1)).effective_dimension == pytest.approx(1)
    # Uncorrelated channels of variances 4 and 1: (4 + 1)² / (16 + 1).
    signs = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1]])
    two = (signs * torch.tensor([[2.0], [1.0]])).view(1, 2, 2, 2)
    assert statistics(two).effective_dimension == pytest.approx(25 / 17)
    assert statistics(torch.ones(1, 3, 4, 4)).effective_dimension == 0


def test_smoothness():
    assert statistics(noise(16, 4, 32, 32)).smoothness == pytest.approx(0, abs=0.02)
    assert statistics(torch.ones(1, 2, 4, 4)).smoothness == 1
    checkers = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8)).view(1, 1, 8, 8)
    assert statistics(checkers).smoothness == pytest.approx(-1)
    wave = torch.sin(torch.arange(64) / 64 * 2 * math.pi).expand(1, 1, 64, 64)
    assert statistics(wave).smoothness > 0.99


def test_channel_statistics():
    z = noise(3, 4, 8, 6)
    found = statistics(z)
    assert found.channel_means == pytest.approx(z.mean((0, 2, 3)).tolist(), abs=1e-6)
    deviations = z.transpose(0, 1).flatten(1).std(1, correction=0)
    assert found.channel_deviations == pytest.approx(deviations.tolist(), rel=1e-5)
    assert len(found.spectrum) == 2 * 6 - 2
    assert sum(found.spectrum) == pytest.approx(1)


def test_sums_of_parts_are_those_of_the_whole():
    z, x = noise(5, 4, 8, 8), noise(5, 3, 16, 16, seed=1)
    whole, parts, other = LatentSums(), LatentSums(), LatentSums()
    whole.add(x, z)
    parts.add(x[:2], z[:2])
    other.add(x[2:], z[2:])
    parts.merge(other)
    parts.merge(LatentSums())
    a, b = whole.statistics([0.5]), parts.statistics([0.5])
    assert a.channel_deviations == pytest.approx(b.channel_deviations)
    assert a.effective_dimension == pytest.approx(b.effective_dimension)
    assert a.smoothness == pytest.approx(b.smoothness)
    assert a.image_spectrum == pytest.approx(b.image_spectrum)
    assert a.drift == 0.5


def test_drift():
    z = noise(4, 8, 8)
    assert relative_drift(1.25 * z, 3, {3: z}) == pytest.approx(0.25)
    assert relative_drift(z, 3, {3: z}) == 0
    assert relative_drift(z, 2, {3: z}) is None
    assert relative_drift(z, 3, {3: z[:2]}) is None
