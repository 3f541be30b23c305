"""Differences between two VAEs: paired, with intervals and tests that hold what they say."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

import equivae
from equivae import InputError
from equivae.evaluation.pairing import _holm, differences
from equivae.evaluation.results import Metrics
from models import ConvAE, MarkedAE, cells, noise


def metrics(errors, names=None) -> Metrics:
    errors = [float(e) for e in errors]
    names = names or [f"{i}.png" for i in range(len(errors))]
    return Metrics(len(errors), 0.0, 0.0, None, {}, {"reconstruction_mse": errors}, names)


def ssim(values) -> Metrics:
    found = metrics([0.01] * len(values))
    found.per_image["reconstruction_ssim"] = [float(v) for v in values]
    return found


def test_the_test_is_scipys_permutation_test():
    random = np.random.default_rng(0)
    a, b = random.random(10), random.random(10) + 0.2
    found = differences(ssim(a), ssim(b))["reconstruction_ssim"]
    expected = scipy.stats.permutation_test(
        (b, a),
        lambda x, y, axis: np.mean(x, axis) - np.mean(y, axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert found.p == pytest.approx(expected.pvalue)
    assert found.value == pytest.approx(b.mean() - a.mean())
    many = differences(ssim(np.tile(a, 3)), ssim(np.tile(b, 3)))["reconstruction_ssim"]
    t = scipy.stats.ttest_rel(np.tile(b, 3), np.tile(a, 3)).pvalue
    assert many.p == pytest.approx(t, abs=0.02)


def test_no_difference_is_found_where_there_is_none():
    random = np.random.default_rng(1)
    found = 0
    for seed in range(100):
        errors = random.lognormal(-6, 1, (2, 12))
        one = differences(metrics(errors[0]), metrics(errors[1]), seed=seed)
        found += one["reconstruction_psnr"].p < 0.05
    assert found <= 11  # 5 are expected; above 11 lies 0.4%


def test_a_small_difference_that_every_image_has_is_larger_than_noise():
    errors = np.geomspace(1e-4, 1e-2, 24)  # which spread by a factor of a hundred
    found = differences(metrics(errors), metrics(0.98 * errors))["reconstruction_psnr"]
    assert found.value == pytest.approx(-10 * math.log10(0.98))
    assert 0 < found.low <= found.value <= found.high
    assert found.is_larger_than_noise
    assert found.is_better
    same = differences(metrics(errors), metrics(errors))["reconstruction_psnr"]
    assert (same.value, same.p, same.is_larger_than_noise) == (0, 1, False)


def test_few_images_cannot_tell():
    found = differences(metrics([0.1, 0.2, 0.3, 0.4]), metrics([0.01, 0.02, 0.03, 0.04]))
    assert found["reconstruction_psnr"].p == 1 / 8
    assert not found["reconstruction_psnr"].is_larger_than_noise
    assert differences(metrics([0.1]), metrics([0.2])) == {}


def test_holm():
    one = differences(metrics([0.1, 0.2]), metrics([0.2, 0.1]))["reconstruction_psnr"]
    ps = [0.01, 0.04, 0.03, 0.5]
    found = _holm([dataclasses.replace(one, p=p) for p in ps])
    assert [d.adjusted_p for d in found] == pytest.approx([0.04, 0.09, 0.09, 0.5])


def test_numbers_that_are_none_are_left_out():
    first, second = metrics([0.1, math.nan]), metrics([0.1, 0.2])
    assert differences(first, second) == {}
    assert differences(metrics([0.0, 0.0]), second) == {}  # an infinite PSNR
    with pytest.raises(InputError, match="different images"):
        differences(second, metrics([0.1, 0.2], ["a", "b"]))


def test_of_a_report():
    report = equivae.evaluate(
        MarkedAE(0.2, 0.1),
        cells(8, 8, 8),
        baseline=MarkedAE(0.2, 0.0),
        sweep_samples=0,
        panels=0,
        progress=False,
    )
    found = report.differences["equivariance_gap_db/rot180"]
    assert found.value == pytest.approx(20 * math.log10(3), abs=1e-4)
    assert not found.is_better
    assert report.to_dict()["differences"]["equivariance_gap_db/rot180"]["value"] == found.value
    alone = equivae.evaluate(ConvAE(), noise(2, 3, 8, 8), sweep_samples=0, progress=False)
    assert alone.differences == {}
