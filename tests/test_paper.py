"""The LaTeX table of a report, letter by letter, and the choice of its rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib.text import Text

import equivae
from equivae import InputError, Report
from equivae.evaluation.results import Metrics, Panel, Spread, TransformMetrics
from equivae.reporting.comparison import Comparison
from models import PoolAE, noise

PSNR = "of the mean squared error"


def metrics(scale: float, count: int = 8, **more) -> Metrics:
    """Every image's error by `scale`; the intervals are made up."""
    errors = [scale * e for e in (1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3, 7e-3, 8e-3)[:count]]
    psnr = -10 * float(np.log10(np.mean(errors)))
    trip = TransformMetrics(10 * float(np.mean(errors)), psnr - 10, None, 10.0, 0.1)
    columns = {"reconstruction_mse": errors, "round_trip_mse/rot180": [10 * e for e in errors]}
    columns["reconstruction_mse/rot180"] = errors
    return Metrics(
        count,
        float(np.mean(errors)),
        psnr,
        None,
        {"rot180": trip},
        columns,
        [f"{i}.png" for i in range(count)],
        spreads={
            "reconstruction_psnr": Spread(psnr, psnr, psnr - 1, psnr + 1, 0.0, "7.png"),
            "round_trip_psnr/rot180": Spread(psnr - 10, 0.0, psnr - 12, psnr - 8, 0.0, "7.png"),
        },
        conventions={"PSNR": PSNR, "rFID": "Inception"},
        **more,
    )


SETTINGS = {"vae": "runs/my_vae", "resolution": 256, "seed": 0}
ROWS = ["round-trip PSNR", "reconstruction PSNR"]


def test_one_autoencoder():
    note = "rFID was not measured: pip install x"
    report = Report(metrics(1.0, notes=[note]), settings=SETTINGS)
    expected = r"""% needs \usepackage{booktabs}
% 8 images, 256 px; in brackets 95% intervals over the images.
\begin{tabular}{lr}
\toprule
 & my\_vae \\
\midrule
rot180: round-trip PSNR, dB & 13.47 (11.47 to 15.47) \\
reconstruction PSNR, dB & 23.47 (22.47 to 24.47) \\
\bottomrule
\end{tabular}

\par\smallskip\footnotesize
8 images, 256 px; in brackets 95\% intervals over the images.\par
PSNR: of the mean squared error.\par
% rFID was not measured: pip install x
"""
    assert report.to_latex(rows=ROWS) == expected


def test_a_baseline():
    report = Report(
        metrics(0.5), metrics(1.0), settings={**SETTINGS, "baseline": "stabilityai/sd-vae-ft-mse"}
    )
    ends = report.differences["round_trip_psnr/rot180"]
    assert (ends.value, ends.adjusted_p) == pytest.approx((3.0103, 3 * 2 / 2**8))
    noise = (
        "* difference larger than noise: p below 0.05 in a permutation test paired by image, adjusted for "
        "the number of comparisons (Holm); the intervals are not adjusted."
    )
    trips = "13.47 (11.47 to 15.47) & 16.48 (14.48 to 18.48)"
    plain = "23.47 (22.47 to 24.47) & 26.48 (25.48 to 27.48)"
    step = "+3.01 (3.01 to 3.01) * & 0.023"
    expected = rf"""% needs \usepackage{{booktabs}}
% 8 images, 256 px; in brackets 95% intervals over the images.
\begin{{tabular}}{{lrrrr}}
\toprule
 & sd-vae-ft-mse & my\_vae & difference & adjusted p \\
\midrule
rot180: round-trip PSNR, dB & {trips} & {step} \\
reconstruction PSNR, dB & {plain} & {step} \\
\bottomrule
\end{{tabular}}

\par\smallskip\footnotesize
8 images, 256 px; in brackets 95\% intervals over the images.\par
PSNR: of the mean squared error.\par
{noise}\par
"""
    assert report.to_latex(rows=ROWS) == expected


def test_names_of_columns():
    def names(**settings):
        return Report(metrics(0.5), metrics(1.0), settings=settings).names

    assert names(vae="AutoencoderKL", baseline="AutoencoderKL") == [
        "AutoencoderKL (baseline)",
        "AutoencoderKL",
    ]
    assert names(seed=1) == ["before", "after"]  # a fine-tune
    assert Report(metrics(1.0)).names == ["value"]


def test_several_autoencoders_and_few_images():
    three = {"a": metrics(1.0, 7), "b": metrics(1.0, 7), "c": metrics(0.5, 7)}
    found = Comparison(three, sources={}, settings={"resolution": "as they are"})
    text = found.to_latex(rows=["rot180: round-trip PSNR"])
    row = "rot180: round-trip PSNR, dB & 13.98 (11.98 to 15.98) & 13.98 (11.98 to 15.98) & "
    assert f"{row}16.99 (14.99 to 18.99) * \\\\" in text
    assert "\n% 7 images; in brackets 95% intervals over the images.\n" in text
    assert "7 images: intervals are unreliable below 8 images.\\par" in text
    assert "* difference from the first autoencoder larger than noise" in text
    assert "unreliable" in found.to_markdown()
    assert "unreliable" in found.summary()
    assert "unreliable" not in Report(metrics(1.0, 8)).to_markdown()


def test_the_same_numbers_have_no_p():
    report = Report(metrics(1.0), dataclasses.replace(metrics(1.0)), settings=SETTINGS)
    (row,) = [x for x in report.to_latex(rows="reconstruction PSNR").splitlines() if "dB &" in x]
    assert row.endswith("& 0.00 &  \\\\")


def test_a_row_that_is_none_is_refused():
    with pytest.raises(
        InputError, match="no row is called 'PSNR'; there are reconstruction PSNR, "
    ):
        Report(metrics(1.0)).to_latex(rows=["PSNR"])


def test_the_verdict_beside_the_same_autoencoder():
    same = Report(metrics(1.0), metrics(1.0)).verdict
    assert same == (
        "The VAE and the baseline give the same images: the equivariance gap under rot180 (plain latent op) "
        "is 10.00 dB and reconstruction 23.47 dB for both, over 8 images."
    )
    halved = Report(metrics(0.5), metrics(1.0)).verdict
    assert "stayed at 10.00 dB" in halved
    assert "reconstruction changed by +3.01 dB (larger than noise, adjusted p = 0.0" in halved


def test_no_autoencoder_is_called_the_best_for_noise():
    better = metrics(1.0)
    for column in better.per_image.values():
        column[:] = [e * (0.8 if i % 2 else 1.1) for i, e in enumerate(column)]
    trip = better.transforms["rot180"]
    better.transforms["rot180"] = dataclasses.replace(trip, round_trip_psnr=13.9)
    found = Comparison({"plain": metrics(1.0), "noisy": better}, sources={}, settings={})
    assert found.verdict == (
        "No VAE has the best round trip by more than noise: noisy has 13.90 dB under rot180 (plain latent "
        "op), its worst transform, 0.43 dB above the next, plain (within noise, adjusted p = 1.000), over 8 "
        "images."
    )


def test_drift_is_from_the_first_autoencoder():
    vaes = {"one": PoolAE(), "two": PoolAE()}
    same = equivae.compare(vaes, noise(2, 3, 8, 8), "hflip", panels=0, progress=False)
    for text in (same.to_markdown(), same.to_csv(), same.to_html()):
        assert "drift from one" in text
        assert "the baseline" not in text


LONG = "rotate(angle=30,padding='border')_fitted_on_photographs"


@pytest.mark.parametrize("name", ["rot180", LONG])
def test_figures_have_the_width_of_a_paper(name):
    generator = torch.Generator().manual_seed(0)

    def panel(rank):
        x = torch.rand(5, 3, 16, 24, generator=generator)
        z = torch.rand(3, 4, 4, 6, generator=generator)
        return Panel(f"{rank}.png", name, *x[:4], rank, *z, x[4])

    found = metrics(1.0)
    found = dataclasses.replace(found, transforms={name: found.transforms["rot180"]})
    panels = [panel("best"), panel("worst")]
    report = Report(found, dataclasses.replace(found), panels=panels, panels_before=panels)
    for figure in report.figures(width=5.5).values():
        assert figure.get_figwidth() == 5.5
        figure.draw_without_rendering()
        whole = figure.bbox
        titles = [text.get_window_extent() for text in figure.findobj(Text) if text.get_text()]
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 7
        for box in titles:
            assert whole.x0 - 1 <= box.x0
            assert box.x1 <= whole.x1 + 1
            assert whole.y0 - 1 <= box.y0
            assert box.y1 <= whole.y1 + 1
        for i, one in enumerate(titles):
            assert not any(one.overlaps(other) for other in titles[i + 1 :])
        for axis in figure.axes:  # no bands: a picture fills its place
            box, picture = axis.get_position(original=True), axis.get_position()
            assert picture.height > 0.93 * box.height
            assert picture.width > 0.93 * box.width
    for width in (0, "wide", True, float("nan")):
        with pytest.raises(InputError, match="width must be a number of inches"):
            report.figures(width=width)
