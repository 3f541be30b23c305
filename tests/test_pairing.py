"""Differences between two VAEs: paired, with intervals and tests that hold what they say."""

from __future__ import annotations

import csv
import dataclasses
import io
import math

import numpy as np
import pytest
import scipy.stats
import torch

import equivae
from equivae import InputError
from equivae.evaluation.against_plain import fitted_against_plain
from equivae.evaluation.pairing import differences, holm
from equivae.evaluation.results import Metrics, TransformMetrics
from equivae.operators.modules import ConvOperator
from equivae.operators.transform import FittedTransform
from equivae.reporting.tables import difference_words
from equivae.reporting.telling import fitted_words
from models import ConvAE, MarkedAE, cells, noise, tiny_kl


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


def testholm():
    one = differences(metrics([0.1, 0.2]), metrics([0.2, 0.1]))["reconstruction_psnr"]
    ps = [0.01, 0.04, 0.03, 0.5]
    found = holm([dataclasses.replace(one, p=p) for p in ps])
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


def test_what_is_identical_is_not_tested_and_weakens_nothing():
    random = np.random.default_rng(0)
    errors = random.lognormal(-6, 1, 12)
    first, second = metrics(errors), metrics(errors * random.uniform(0.7, 0.95, 12))
    alone = differences(first, second)["reconstruction_psnr"]
    same = random.random(12).tolist()
    for one in (first, second):
        one.per_image["reconstruction_ssim"] = list(same)
    second.per_image["reconstruction_ssim"] = [value * (1 + 1e-8) for value in same]
    found = differences(first, second)
    assert found["reconstruction_psnr"].adjusted_p == alone.adjusted_p == alone.p
    ssim = found["reconstruction_ssim"]
    assert ssim.is_identical
    assert (ssim.value, ssim.low, ssim.high, ssim.adjusted_p) == (0, 0, 0, 1)
    assert not found["reconstruction_psnr"].is_identical
    assert difference_words(ssim, "") == ["0.00000", "no, identical"]


def fitted(plain, trips) -> Metrics:
    """A VAE with one plain round trip and several fitted ones, by name."""
    found = metrics([1e-3] * len(plain))
    names = ["hflip", *trips]
    for name, errors in zip(names, [plain, *trips.values()], strict=True):
        found.per_image[f"round_trip_mse/{name}"] = [float(e) for e in errors]
        kind = ("plain", None) if name == "hflip" else ("fitted", "hflip")
        psnr = -10 * math.log10(np.mean(errors))
        found.transforms[name] = TransformMetrics(
            float(np.mean(errors)), psnr, None, 0.0, 0.1, latent_op=kind[0], plain_transform=kind[1]
        )
    return found


def test_a_fitted_op_is_tested_against_the_plain_one():
    random = np.random.default_rng(0)
    plain = random.lognormal(-5, 0.8, 12)
    better = plain * random.uniform(0.3, 0.5, 12)
    (one,) = fitted_against_plain(fitted(plain, {"hflip_fitted": better})).values()
    assert one.value == pytest.approx(10 * math.log10(plain.mean() / better.mean()))
    assert one.low < one.value < one.high
    assert one.is_larger_than_noise
    assert one.p == one.adjusted_p
    both = fitted(plain, {"a": better, "b": plain * np.tile([0.92, 1.08], 6), "same": plain})
    found = fitted_against_plain(both)
    assert found["a"].adjusted_p == pytest.approx(2 * found["a"].p)  # `same` is not tested
    assert not found["b"].is_larger_than_noise
    assert found["same"].is_identical
    said = fitted_words({"value": both}, {"value": found})
    assert said[0].startswith(f"a against hflip: +{found['a'].value:.2f} dB round trip (95% inter")
    assert "larger than noise, adjusted p = 0.0" in said[0] or "adjusted p < 0.001" in said[0]
    assert "within noise, adjusted p = " in said[1]
    assert said[2] == "same against hflip: the same round trip for every image."
    del both.transforms["hflip"]
    assert fitted_against_plain(both) == {}


def test_a_report_shows_the_fitted_op_against_the_plain_one():
    vae = tiny_kl()
    operator = ConvOperator(equivae.Autoencoder(vae).latent_channels)
    with torch.no_grad():
        operator.weight.mul_(1.5)
    t = FittedTransform(equivae.get_transform("hflip"), operator)
    report = equivae.evaluate(
        vae, noise(8, 3, 16, 16), ["hflip", t], sweep_samples=0, panels=0, progress=False
    )
    found = report.against_plain["value"]["hflip_fitted"]
    start = "hflip_fitted against hflip: "
    for text in (report.summary(), report.to_markdown(), report.to_html(), report.to_latex()):
        assert start in text.replace("\\_", "_")
    assert report.to_dict()["against_plain"]["hflip_fitted"]["value"] == found.value
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    (row,) = [row for row in rows if row["subject"] == "hflip_fitted against hflip"]
    assert float(row["difference"]) == found.value
    trips = [report.metrics.transforms[name].round_trip_psnr for name in ("hflip_fitted", "hflip")]
    assert float(row["value"]) == trips[0]
    assert found.value == pytest.approx(trips[0] - trips[1])
