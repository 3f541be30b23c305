"""NaN and infinity are the worst there is, wherever numbers are compared, and are said to be there."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import jsonschema
import pytest
import torch
from torch import Tensor

import equivae
from equivae import InputError, Report
from equivae.evaluation.features import FeatureSums, frechet_distance
from equivae.evaluation.latents import LatentSums
from equivae.evaluation.quality import mean_inside, similarity
from equivae.evaluation.responses import TransformAnalysis, recommend
from equivae.evaluation.statistics import Resampling, difference_of, psnr_of
from equivae.reporting import LatentAnalysis, charts
from equivae.reporting import report as report_module
from equivae.reporting.pictures import choose_images
from equivae.units import difference_db, finite_or_none, psnr, rank, unit
from models import ConvAE, PoolAE, cells, noise

NAN = math.nan
SCHEMA = json.loads(
    (Path(report_module.__file__).parent / "report.schema.json").read_text(encoding="utf-8")
)


class Broken(PoolAE):
    """Decodes to NaN (or infinity) what is brighter than a half anywhere."""

    def __init__(self, value: float = NAN) -> None:
        super().__init__()
        self.value = value

    def decode(self, latents: Tensor) -> Tensor:
        images = super().decode(latents)
        bright = images.flatten(1).amax(1).view(-1, 1, 1, 1) > 0.5
        return torch.where(bright, self.value, 0.95 * images)


class Turned(PoolAE):
    """Decodes to NaN what has been turned around: its upper left is not the brightest corner."""

    def decode(self, latents: Tensor) -> Tensor:
        images = super().decode(latents)
        turned = images[:, :1, :1, :1] < images[:, :1, -1:, -1:]
        return torch.where(turned, NAN, images)


class NoLatents(PoolAE):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images) * NAN


def images() -> Tensor:
    x = cells(4, 16, 16, scale=0.4)
    x[2, :, :2, :2] = 0.9
    return x


def evaluate(vae, x=None, transforms="rot180", **options):
    options = {"sweep_samples": 0, "progress": False, **options}
    return equivae.evaluate(vae, images() if x is None else x, transforms, **options)


def test_units():
    assert math.isnan(psnr(NAN))
    assert psnr(0.0) == math.inf
    assert psnr(math.inf) == -math.inf
    assert difference_db(math.inf, math.inf) == 0
    assert math.isnan(difference_db(NAN, 3.0))
    assert rank(NAN) == -math.inf
    assert rank(NAN, larger_is_better=False) == math.inf
    assert rank(2.0) == 2.0
    assert [finite_or_none(v) for v in (1.0, NAN, math.inf)] == [1.0, None, None]
    assert (
        unit(torch.tensor([-2.0, 0.0, math.inf, NAN])).isnan().tolist() == [False] * 2 + [True] * 2
    )


@pytest.mark.parametrize("value", [NAN, -math.inf])
def test_a_vae_that_breaks_on_one_image(value, tmp_path):
    report = evaluate(Broken(value), transforms="d2", panels=1)
    metrics = report.metrics
    assert math.isnan(metrics.reconstruction_psnr)
    assert math.isnan(metrics.reconstruction_ssim)
    found = metrics.transforms["rot180"]
    assert math.isnan(found.equivariance_gap_db)
    assert math.isnan(metrics.groups["d2"].equivariance_gap_db)
    assert math.isnan(metrics.groups["d2"].worst_gap_db)
    assert metrics.non_finite["reconstruction_mse"] == 1
    for key in ("reconstruction_psnr", "equivariance_gap_db/rot180"):
        spread = metrics.spreads[key]
        assert (spread.worst_image, math.isnan(spread.worst)) == ("#2", True)
        assert all(math.isnan(v) for v in (spread.value, spread.median, spread.low, spread.high))
    assert report.verdict == (
        "Nothing can be said of this VAE: its output is NaN or infinite for 1 of 4 images."
    )
    assert ("reconstruction PSNR", "", "NaN") in report.rows()
    folder = report.save(tmp_path / "out")
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    assert content["metrics"]["reconstruction_mse"] is None
    assert content["metrics"]["per_image"]["reconstruction_mse"][2] is None
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "NaN" in html
    assert "∞" not in html
    assert "inf" not in (folder / "report.md").read_text(encoding="utf-8").split("##")[0].split("|")


def test_a_round_trip_that_breaks():
    x = images()
    x[:, :, -2:, -2:] = x[:, :, :2, :2] - 0.1
    report = evaluate(Turned(), x, "rot180")
    assert report.metrics.reconstruction_psnr > 100
    said = "There is no equivariance gap under rot180 (plain latent op) to tell"
    assert report.verdict.startswith(said)
    assert "no finite error for 4 of 4 images" in report.verdict


def test_broken_latents_have_no_smoothness(tmp_path):
    report = evaluate(NoLatents(), panels=1)
    latents = report.metrics.latents
    assert math.isnan(latents.smoothness)
    assert math.isnan(latents.effective_dimension)
    report.save(tmp_path / "out")


def test_a_broken_vae_before_or_after():
    better = evaluate(ConvAE(), baseline=Broken())
    assert "the VAE before has no finite numbers" in better.verdict
    worse = evaluate(Broken(), baseline=ConvAE())
    assert "Nothing can be said of this VAE" in worse.verdict


def test_a_broken_vae_never_wins_a_comparison(tmp_path):
    vaes = {"broken": Broken(), "poor": ConvAE()}
    options = {"sweep_samples": 1, "panels": 1, "progress": False}
    found = equivae.compare(vaes, images(), **options)
    assert found.verdict.startswith("poor has the best round trip")
    assert found.verdict.endswith("; broken: no finite numbers.")
    folder = found.save(tmp_path / "out")
    html = (folder / "comparison.html").read_text(encoding="utf-8")
    assert html.count('class="strong"') == 1
    jsonschema.Draft202012Validator(SCHEMA).validate(found.to_dict())
    both = equivae.compare({"a": Broken(), "b": Broken(math.inf)}, images(), **options)
    assert both.verdict == "None of these VAEs gives finite numbers over 4 images."


def test_the_worst_image_is_the_broken_one():
    metrics = evaluate(Broken()).metrics
    assert choose_images(metrics, 3)[-1] == (2, "worst")


def test_sweeps_have_gaps():
    report = evaluate(Broken(), sweep_samples=4)
    assert any(map(math.isnan, report.metrics.sweeps["scale"].round_trip_psnr))
    assert "sweep_scale.png" in report.figures()


def test_spreads_of_nan():
    columns = {"a": [0.1, NAN, 0.3], "b": [0.1, 0.2, 0.3]}
    resampling = Resampling(["x", "y", "z"], columns, 0)
    gap = resampling.spread(
        ["b", "a"],
        lambda m: difference_of(psnr_of(m[..., 0]), psnr_of(m[..., 1])),
        larger_is_better=False,
    )
    assert gap.worst_image == "y"
    assert all(math.isnan(v) for v in (gap.value, gap.median, gap.low, gap.high, gap.worst))


def test_features_that_are_none():
    sums = FeatureSums()
    sums.add(torch.tensor([[0.0, NAN], [1.0, 2.0]]))
    assert math.isnan(frechet_distance(sums, sums))


def test_sums_of_broken_latents():
    sums = LatentSums()
    sums.add(noise(1, 3, 8, 8), torch.full((1, 2, 4, 4), math.inf))
    assert math.isnan(sums.statistics([]).smoothness)


def test_an_empty_mask_is_no_perfect_match():
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    mask[0] = True
    x = noise(2, 3, 8, 8)
    assert mean_inside(x.square(), mask).isnan().tolist() == [False, True]
    ssim, _ = similarity(x, x, mask)
    assert ssim.isnan().tolist() == [False, True]
    outside = torch.where(mask, x, NAN)
    assert not mean_inside(outside, mask)[0].isnan()


def test_a_mask_that_is_empty_somewhere_is_told():
    class Nowhere(type(equivae.get_transform("hflip"))):  # type: ignore[misc]
        name = "nowhere"

        exact = False

        def mask(self, x: Tensor) -> Tensor:
            return torch.zeros(x.shape[-2:], dtype=torch.bool)

    nowhere = Nowhere(transposes=False, flips_height=False, flips_width=True)
    found = evaluate(PoolAE(), transforms=[nowhere]).metrics.transforms
    (one,) = found.values()
    assert math.isnan(one.round_trip_psnr)
    assert math.isnan(one.equivariance_gap_db)
    assert math.isnan(one.encoder_cosine)


def test_nothing_is_recommended_on_no_numbers():
    for numbers in ((NAN, 20.0, 30.0), (30.0, NAN, 30.0), (30.0, 20.0, NAN)):
        assert "nothing can be said" in recommend(*numbers, 5)


def test_a_report_made_by_hand():
    metrics = evaluate(PoolAE()).metrics
    assert (
        "Nothing can be said"
        in Report(dataclasses.replace(metrics, reconstruction_psnr=NAN)).verdict
    )


@pytest.mark.parametrize("value", [NAN, math.inf, 0.0])
def test_curves_of_no_numbers_are_drawn(value, tmp_path):
    history = [{"step": 1, "epoch": 0, "loss": value}, {"step": 2, "epoch": 0, "loss": value}]
    sweep = equivae.evaluation.Sweep("rotate", "angle", [0.0, 1.0], [value] * 2, [value] * 2, 1)
    spectrum = {"latents": ([value, value], charts.AFTER)}
    figures = (
        charts.draw_losses(history),
        charts.draw_losses(history, by="epoch"),
        charts.draw_sweep({"a": sweep}, [charts.AFTER]),
        charts.draw_spectra(spectrum),
    )
    for figure in figures:
        charts.to_svg(figure, "x")


def analysis(value):
    one = TransformAnalysis(
        0.1, {1: 0.1, 3: 0.1}, value, {1: value, 3: value}, [0.1], [0.1], None, ""
    )
    return LatentAnalysis(2, value, {"$a$b": one}, [value], [value], [0.1])


@pytest.mark.parametrize("value", [NAN, math.inf])
def test_an_analysis_of_a_perfect_or_a_broken_vae_is_saved(value, tmp_path):
    analysis(value).save(tmp_path)
    content = json.loads((tmp_path / "analysis.json").read_text())
    assert content["reconstruction_psnr"] == finite_or_none(value)


# Fits ---------------------------------------------------------------------------------------------


def test_a_fit_that_diverged_is_not_saved(tmp_path):
    fitted = equivae.fit_latent_op(
        PoolAE(), "rot180", images(), 1, eval_batch_size=4, progress=False
    )
    with torch.no_grad():
        fitted.operator.weight[0, 0] = NAN
    with pytest.raises(
        InputError, match=r"'rot180_fitted' holds NaN .* in forward_operator\.weight"
    ):
        fitted.save(tmp_path / "op")
    assert not (tmp_path / "op").exists()


def test_a_fit_on_broken_latents_is_refused():
    with pytest.raises(InputError):
        equivae.fit_latent_op(NoLatents(), "rot180", images(), 1, progress=False)


@pytest.mark.parametrize("ridge", [math.inf, NAN])
def test_a_ridge_is_a_number(ridge):
    with pytest.raises(InputError, match="ridge must"):
        equivae.fit_latent_op(PoolAE(), "rot180", images(), 1, ridge=ridge, progress=False)
