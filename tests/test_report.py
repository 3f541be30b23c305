"""The report: JSON, Markdown and pictures, and never over an earlier one."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from PIL import Image

import equivae
from equivae import InputError, Report
from equivae.evaluation import Metrics, TransformMetrics
from models import ConvAE, MarkedAE, PoolAE, cells, noise, tiny_kl


def evaluate(vae, images, transforms="rot180", **options):
    options = {"sweep_samples": 0, "progress": False, **options}
    return equivae.evaluate(vae, images, transforms, **options)


def metrics(gaps: dict[str, float], psnr: float = 30.0) -> Metrics:
    found = {name: TransformMetrics(0.01, psnr - gap, 0.9, gap, 0.1) for name, gap in gaps.items()}
    return Metrics(4, 0.001, psnr, 0.95, found)


def test_to_dict_is_json_with_infinite_numbers():
    report = evaluate(PoolAE(), cells(2, 8, 8), ["rot180", "hflip"])
    assert report.metrics.reconstruction_psnr == math.inf
    report.skipped = [("a.png", "broken")]
    content = report.to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["metrics"]["reconstruction_psnr"] is None
    assert content["metrics"]["reconstruction_mse"] == 0
    assert set(content["metrics"]["transforms"]) == {"rot180", "hflip"}
    assert content["before"] is None
    assert content["skipped"] == [{"image": "a.png", "reason": "broken"}]
    assert {"equivae", "torch", "diffusers", "python"} <= set(content["versions"])


def test_to_dict_has_every_number():
    report = evaluate(ConvAE(), noise(2, 3, 8, 8), baseline=PoolAE())
    content = report.to_dict()
    assert content["metrics"] == dataclasses.asdict(report.metrics)
    assert content["before"] == dataclasses.asdict(report.before)
    assert content["verdict"] == report.verdict


def test_verdict():
    one = Report(metrics({"rot180": 1.5}))
    assert "under rot180 (plain latent op) is 1.50 dB" in one.verdict
    assert "4 images" in one.verdict
    worst = Report(metrics({"rot180": 1.5, "hflip": 2.5}), metrics({"rot180": 9, "hflip": 8}, 29.0))
    said = "under hflip (plain latent op), the worst transform, went from 8.00 to 2.50 dB"
    assert said in worst.verdict
    assert "reconstruction changed by +1.00 dB" in worst.verdict
    assert "Reconstruction is 30.00 dB" in Report(metrics({})).verdict


def test_verdict_of_perfect_vaes_is_no_nan():
    report = evaluate(PoolAE(), cells(2, 8, 8), baseline=PoolAE())
    assert "nan" not in report.verdict + report.to_markdown()


def test_to_markdown_has_the_table():
    report = evaluate(ConvAE(), noise(2, 3, 8, 8), ["rot180", "hflip"])
    text = report.to_markdown()
    lines = text.splitlines()
    assert report.verdict in lines
    assert "| metric | value | 95% interval |" in lines
    value = report.metrics.transforms["hflip"].round_trip_psnr
    spread = report.metrics.spreads["round_trip_psnr/hflip"]
    ends = f"{spread.low:.2f} to {spread.high:.2f} dB"
    assert f"| hflip: round-trip PSNR | {value:.2f} dB | {ends} |" in lines
    assert "- PSNR: of the mean squared error over the images" in text
    assert "![" in text


def test_to_markdown_with_a_baseline():
    report = evaluate(MarkedAE(0.2, 0.1), cells(2, 8, 8), baseline=MarkedAE(0.2, 0.0))
    lines = report.to_markdown().splitlines()
    assert "| metric | before | after | difference (95% interval) | larger than noise |" in lines
    (gap,) = [line for line in lines if "equivariance gap |" in line]
    step = f"{20 * math.log10(3):.2f}"
    told = f"+{step} dB ({step} to {step} dB) | no, adjusted p = 1.000"
    assert gap == f"| rot180: equivariance gap | 0.00 dB | {step} dB | {told} |"
    assert all(
        line.count("|") == 6 for line in lines if line.startswith(("| rot", "| reconstruction "))
    )


def test_rows_of_a_transform_that_only_one_has():
    report = Report(metrics({"rot180": 1.0}), metrics({}))
    (row,) = [row for row in report.rows() if row[0] == "rot180: equivariance gap"]
    assert row == ("rot180: equivariance gap", "", "1.00 dB")


def test_skipped_images_are_named():
    report = Report(metrics({}), skipped=[("b.png", "truncated")])
    assert "- `b.png`: truncated" in report.to_markdown()


def test_save_writes_files_that_open(tmp_path):
    report = evaluate(ConvAE(), noise(2, 3, 12, 16), ["rot90", "hflip"], baseline=PoolAE())
    report.history = [{"step": 1, "loss": 0.5}, {"step": 1, "validation_loss": 0.7}]
    folder = report.save(tmp_path / "new")
    names = {p.name for p in folder.iterdir()}
    figures = {"panels_rot90.png", "panels_hflip.png", "latents_rot90.png", "latents_hflip.png"}
    figures |= {"overview.png", "spectrum.png", "profile.png", "loss.png"}
    texts = {f"report.{kind}" for kind in ("json", "md", "html", "csv", "tex")}
    assert names == {*texts, *figures}
    assert (folder / "report.html").read_text(encoding="utf-8") == report.to_html()
    assert json.loads((folder / "report.json").read_text()) == report.to_dict()
    assert (folder / "report.md").read_text(encoding="utf-8") == report.to_markdown()
    for name in figures:
        assert f"({name})" in report.to_markdown()
        with Image.open(folder / name) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 200
            assert len(image.convert("RGB").getcolors(2**24)) > 10


def test_grey_images_and_transforms_without_an_inverse_are_drawn(tmp_path):
    equivae.register_transform("dim", pixel=lambda x: x / 2, latent=lambda z: z / 2)
    vae = tiny_kl(in_channels=1, out_channels=1)
    folder = evaluate(vae, noise(1, 1, 8, 8), "dim").save(tmp_path)
    assert (folder / "panels_dim.png").is_file()


def test_an_existing_report_is_refused(tmp_path):
    report = Report(metrics({"rot180": 1.0}))
    report.save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    other = Report(metrics({"rot180": 2.0}))
    with pytest.raises(InputError, match="holds a report already"):
        other.save(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    other.save(tmp_path, overwrite=True)
    assert json.loads((tmp_path / "report.json").read_text()) == other.to_dict()


def test_other_files_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    Report(metrics({})).save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        Report(metrics({})).save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
