"""Reports where they are quoted: short text, notebooks, CSV, LaTeX, figures for papers, numbers as text."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re

import pytest
import torch

import equivae
from equivae import InputError, Report
from equivae.autoencoder import Autoencoder
from equivae.cli.inputs import seeds_of
from equivae.evaluation import Metrics, TransformMetrics
from equivae.evaluation.latent_metrics import FlatField
from equivae.evaluation.results import Spread
from equivae.reporting.numbers import fixed, number, p_value, signed
from equivae.reporting.page_numbers import spread_rows
from equivae.reporting.probes import Probes, draw_rows, flat_rows, lie_rows, probe
from equivae.reporting.tables import interval
from equivae.reporting.text import latex
from models import ConvAE, MarkedAE, PoolAE, cells, noise

QUIET = {"sweep_samples": 0, "progress": False}


@pytest.fixture(scope="module")
def report():
    return equivae.evaluate(
        MarkedAE(0.2, 0.1),
        cells(8, 16, 16),
        ["rot180", "vflip"],
        baseline=MarkedAE(0.3, 0.1),
        protocol="imagenet",
        metrics="all",
        features=lambda x: x.mean((2, 3)),
        lpips=lambda a, b: (a - b).square().mean((1, 2, 3)),
        resolution=16,
        panels=1,
        **QUIET,
    )


def test_numbers_are_rounded_never_cut():
    assert fixed(0.0978, 3) == "0.098"
    assert fixed(-0.004, 2) == "0.00"
    assert number(-0.0049, "dB") == "0.00 dB"
    assert number(-1e-9) == "0.00000"
    assert number(0.5 / 255, "1/255") == "0.50/255"
    assert number(math.inf, "dB") == "∞ dB"
    assert (signed(0.001, "dB"), signed(0.5, "dB"), signed(-0.5, "dB")) == (
        "0.00 dB",
        "+0.50 dB",
        "-0.50 dB",
    )
    one = TransformMetrics(0.01, 20.0, 0.9, -0.004, 0.0978)
    shown = Report(Metrics(4, 0.01, 20.0, 0.9, {"rot180": one}))
    assert "-0.00" not in shown.to_html() + shown.to_markdown() + shown.verdict
    assert ">0.098<" in shown.to_html()


def test_numbers_have_as_many_digits_as_mean_something():
    shown = [number(value) for value in (0.0123456, 0.98765, 1.85098, 23.2481, 533.9992, 12345.6)]
    assert shown == ["0.01235", "0.9877", "1.851", "23.25", "534.0", "1.23e+04"]
    assert [number(t, "ms") for t in (1.8206, 0.0000148, 0.0)] == ["1821 ms", "0.0148 ms", "0 ms"]
    assert interval(Spread(0.4128, 0.41, 0.0, 2.58547, 2.0, "a"), "") == "0.0000 to 2.5855"
    assert interval(Spread(534.01, 500.0, 0.0612, 1e5, 2.0, "a"), "") == "0.1 to 100000.0"
    one = dataclasses.replace(
        Metrics(4, 0.01, 20.0, 0.9), spreads={"k": Spread(20, 20, 1, 30, 5, "b")}
    )
    assert spread_rows(one)[0]["interval"] == "1.00 – 30.00"


def test_pictures_of_flat_fields_say_their_scale():
    flats = torch.stack([torch.full((3, 8, 8), level + 8 / 255) for level in (0.0, 1.0)])
    found = Probes(FlatField((0.0, 1.0), flats, 2, 0, 0, 0), torch.zeros(3, 6, 6))
    ((_, tiles),) = flat_rows({"": found})
    assert [tile.caption for tile in tiles] == ["black, off by 8.00/255", "white, off by 8.00/255"]
    assert tiles[1].picture.mean() == pytest.approx(0.5 + 8 * 8 / 255, abs=1e-5)
    figure = draw_rows([("one", tiles), ("other", tiles)])
    words = [
        t.get_text()
        for axis in figure.axes
        for bar in axis.child_axes
        for t in bar.get_xticklabels()
    ]
    assert words == ["-16/255", "deviation", "+16/255"] * 2  # below the last row alone


def test_maps_of_lie_derivatives_leave_out_what_the_number_does(report):
    vae, images = Autoencoder(MarkedAE(0.2, 0.1)), equivae.data.load_images(cells(1, 16, 16))
    found = probe(vae, images, 0, "all")
    edge = 2 * vae.factor
    assert found.image.shape == (3, 16 - 2 * edge, 16 - 2 * edge)
    ((_, (image, *maps)),) = lie_rows({"": found})
    assert torch.equal(image.picture, (images[0].add(1) / 2)[:, edge:-edge, edge:-edge])
    assert [one.scale.name for one in maps] == ["per radian", "per factor of e", "per side"]
    assert re.search(r"rotation: white is \d+\.\d+ per radian", report.to_html())
    assert probe(vae, equivae.data.load_images(cells(1, 8, 8)), 0, "all").lie == {}


def test_a_report_is_short_where_it_is_printed(report):
    text = repr(report)
    assert str(report) == text == report.summary()
    assert len(text) < 1500
    assert text.startswith(report.verdict)
    assert "reconstruction PSNR" in text
    assert "difference (95% interval)" in text


def test_notebooks(report):
    text, page = report._repr_markdown_(), report._repr_html_()
    assert text.count("\n|") > 3
    assert "<table>" in page
    assert "<script" not in page
    nasty = Report(
        Metrics(1, 0.1, 10.0, None, {"<b>": TransformMetrics(0.1, 10.0, None, 0.0, 0.1)})
    )
    assert "<b>:" not in nasty._repr_html_()


def test_every_output_names_the_convention(report):
    said = "mean of the images' own PSNR over 8 bits"
    for text in (report.to_markdown(), report.to_html(), report.to_csv(), report.to_latex()):
        assert "reconstruction PSNR (imagenet)" in text
        assert said in text.replace("&#39;", "'")
    conventions = report.to_dict()["metrics"]["conventions"]
    assert said in conventions["PSNR (imagenet)"]
    assert "mean squared error over the images" in conventions["PSNR"]


def test_csv_has_every_number_in_full(report):
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    (one,) = [
        row for row in rows if (row["vae"], row["metric"]) == ("after", "reconstruction PSNR")
    ]
    spread = report.metrics.spreads["reconstruction_psnr"]
    assert float(one["value"]) == report.metrics.reconstruction_psnr
    assert (float(one["low"]), float(one["high"])) == (spread.low, spread.high)
    assert float(one["p"]) == report.differences["reconstruction_psnr"].p
    assert {row["subject"] for row in rows} >= {"", "rot180", "vflip", "latents"}


def test_latex(report):
    text = report.to_latex()
    assert text.count("\\toprule") == text.count("\\bottomrule") == 1
    rows = text.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines()
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {4}
    assert latex("a_b & 50% of -3.5 {x}") == r"a\_b \& 50\% of $-$3.5 \{x\}"


def test_figures_in_formats(report, tmp_path):
    small = dataclasses.replace(report, panels=report.panels[:1], panels_before=[])
    folder = small.save(tmp_path / "out", figures=("pdf", "svg"))
    names = {p.name for p in folder.iterdir()}
    for kind in ("pdf", "svg"):
        assert {f"overview.{kind}", f"flat_field.{kind}", f"lie.{kind}"} <= names
    assert not [name for name in names if name.endswith(".png")]
    pdf = (folder / "overview.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"CreationDate" not in pdf
    with pytest.raises(InputError, match="figures must be some of png, pdf, svg, got 'eps'"):
        report.save(tmp_path / "other", figures=("eps",))
    assert not (tmp_path / "other").exists()


def test_a_verdict_names_its_op_and_no_infinity():
    x = cells(3, 8, 8)
    perfect, broken = PoolAE(), MarkedAE(0.1, 0.1)
    for module, baseline in ((perfect, None), (broken, None), (perfect, broken), (broken, perfect)):
        verdict = equivae.evaluate(module, x, baseline=baseline, panels=0, **QUIET).verdict
        assert "inf" not in verdict
        assert "∞" not in verdict
        assert "(plain latent op)" in verdict
    two = equivae.compare({"a": perfect, "b": broken}, x, panels=0, **QUIET)
    assert "inf" not in two.verdict
    assert "a has the best round trip: without error under rot180 (plain latent op)" in two.verdict


def test_the_verdict_of_a_comparison_says_whether_it_is_noise():
    x = noise(8, 3, 8, 8)
    found = equivae.compare({"a": ConvAE(0), "b": ConvAE(0)}, x, panels=0, **QUIET)
    assert ", as b has" in found.verdict or ", as a has" in found.verdict
    other = equivae.compare(
        {"a": MarkedAE(0.2, 0.1), "b": MarkedAE(0.3, 0.1)}, cells(12, 8, 8), **QUIET
    )
    assert "above the next, b (larger than noise, adjusted p" in other.verdict
    assert "*" not in other.to_markdown().split("Made")[0].replace("\\*", "")


def test_three_autoencoders_have_stars(tmp_path):
    vaes = {"a": MarkedAE(0.2, 0.1), "b": MarkedAE(0.3, 0.1), "c": MarkedAE(0.2, 0.1)}
    found = equivae.compare(vaes, cells(12, 8, 8), panels=0, **QUIET)
    (gap,) = [row for row in found.rows_with_certainty()[1] if row[0].endswith("gap")]
    assert [cell.endswith("*") for cell in gap[1:]] == [False, True, False]
    assert "A star marks a difference from the first" in found.to_markdown()


def test_several_seeds():
    vaes = {"base": PoolAE(), "ours": [ConvAE(1), ConvAE(2), ConvAE(3)]}
    found = equivae.compare(vaes, noise(4, 3, 8, 8), panels=0, **QUIET)
    assert list(found.metrics) == ["base", "ours, seed 1", "ours, seed 2", "ours, seed 3"]
    head, rows = found.seed_table()
    assert head == ["metric", "ours, 3 seeds"]
    values = [found.metrics[label].reconstruction_psnr for label in found.seeds["ours"]]
    mean = sum(values) / 3
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 2)
    assert rows[0] == ["reconstruction PSNR", f"{mean:.2f} ± {deviation:.2f} dB"]
    assert "Over seeds" in found.to_markdown()
    assert "over seeds" in found.to_html()
    with pytest.raises(InputError, match="ours is an empty list"):
        equivae.compare({"base": PoolAE(), "ours": []}, noise(1, 3, 8, 8))


def test_seeds_on_the_command_line():
    assert seeds_of(["a/b", "c"]) == ["a/b", "c"]
    found = seeds_of(["a/b", "ours=r/0, r/1", "one=r/2"])
    assert found == {"b": "a/b", "ours": ["r/0", "r/1"], "one": "r/2"}
    with pytest.raises(InputError, match="names no VAEs"):
        seeds_of(["a", "ours="])
    with pytest.raises(InputError, match="two VAEs are called"):
        seeds_of(["x/a", "a=b"])


def test_the_verdict_of_a_comparison_has_the_p_of_its_table():
    x = noise(6, 3, 16, 16)
    vaes = {"a": MarkedAE(0.3, 0.1), "b": MarkedAE(0.1, 0.1)}
    found = equivae.compare(vaes, x, "rot180", panels=0, **QUIET)
    (differences,) = found.differences.values()
    told = p_value(differences["round_trip_psnr/rot180"].adjusted_p)
    assert f"p{told})" in found.verdict
