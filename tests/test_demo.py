"""The embedded VAE is what its card says, and the demo does what it promises."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

import equivae
from equivae.data import load_images
from equivae.demo import SUBFOLDERS, Ways, demo, finetune_plain
from equivae.evaluation.metrics import MeasureOptions, measure


@pytest.fixture
def small_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the pixels to measure on; `make demo` has them all."""
    whole = equivae.zoo.photographs
    monkeypatch.setattr(equivae.zoo, "photographs", lambda resolution=128: whole(resolution))


def test_embedded_vae_is_good_and_far_from_equivariant(shared_data: Path) -> None:
    images = load_images(shared_data / "kodak", resolution=256, max_samples=12)
    options = MeasureOptions(ceiling=False, progress=False)
    vae, turned = equivae.Autoencoder(equivae.zoo.load()), equivae.get_transform("rot180")
    metrics = measure(vae, images, [turned], options)
    assert metrics.reconstruction_psnr >= 27
    assert metrics.transforms["rot180"].equivariance_gap_db >= 5


def test_embedded_files_fit_into_the_wheel() -> None:
    files = {path.name: path.stat().st_size for path in equivae.zoo.folder().iterdir()}
    assert {"config.json", "README.md", "diffusion_pytorch_model.safetensors"} == set(files)
    assert sum(files.values()) < 6 * 2**20


def test_photographs_are_images() -> None:
    photographs = equivae.zoo.photographs(64)
    assert photographs.shape == (6, 3, 64, 64)
    assert photographs.abs().max() <= 1
    assert photographs.std() > 0.2


@pytest.mark.usefixtures("small_photographs")
def test_the_plain_fine_tune_closes_the_gap_and_writes_everything(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    # A quarter of the demo's steps and all of the equivariance term's weight.
    result = finetune_plain(out, max_train_steps=100, weight=1.0, progress=False)
    before, after = result.report.before, result.report.metrics
    assert before is not None
    assert before.transforms["rot180"].equivariance_gap_db > 5
    assert after.transforms["rot180"].equivariance_gap_db < 1.5
    assert after.transforms["rot180"].round_trip_psnr > (
        before.transforms["rot180"].round_trip_psnr + 4
    )
    written = {path.name for path in out.iterdir() if path.is_file()}
    assert written == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "latents_rot180.png",
        "loss.png",
        "overview.png",
        "panels_rot180.png",
        "profile.png",
        "recipe.yaml",
        "report.csv",
        "report.html",
        "report.json",
        "report.md",
        "report.tex",
        "README.md",
        "spectrum.png",
        "sweep_rotate.png",
        "sweep_scale.png",
    }
    assert json.loads((out / "report.json").read_text())["metrics"]["images"] == 6
    x = equivae.zoo.photographs(64)[:1]
    with torch.no_grad():
        ours = result.vae.decode(result.vae.encode(x).latent_dist.mode()).sample
        loaded = AutoencoderKL.from_pretrained(out).eval()
        theirs = loaded.decode(loaded.encode(x).latent_dist.mode()).sample
    assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("small_photographs")
def test_the_demo_shows_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, measured = tmp_path / "demo", []
    monkeypatch.setattr(
        "equivae.demo.measure", lambda *given: (measured.append(1), measure(*given))[1]
    )
    result = demo(out, max_train_steps=2, progress=False)
    assert len(measured) == 3  # a fine-tune's own report has its numbers
    names = [one.name for one in result.choices]
    made = ["fitted", "symmetrized", "fitted, fine-tuned", "fine-tuned"]
    assert names == ["untouched", "re-encoded", *made]
    untouched, reencoded, fitted, symmetrized = (result[name] for name in names[:4])
    assert untouched.gap_db > 8
    # The numbers that make these two worth having, on photographs that nothing was fitted on.
    assert fitted.reconstruction_psnr == untouched.reconstruction_psnr
    assert fitted.gap_db < 1.3
    assert symmetrized.gap_db < 1e-4
    assert [result[name].latents_stay_valid for name in made] == [True, False, True, False]
    assert reencoded.folder is None
    assert reencoded.latents_stay_valid
    assert 20 < reencoded.round_trip_psnr < untouched.reconstruction_psnr
    assert {path.name for path in out.iterdir()} == {
        *SUBFOLDERS,
        *("choices.json", "choices.md", "choices.png", "demo.html"),
    }
    page = (out / "demo.html").read_text(encoding="utf-8")
    assert page.count("<img src=") == 1 + len(names)
    assert all(f"{one.round_trip_psnr:.2f} dB</td>" in page for one in result.choices)
    links = [link for link in re.findall('href="([^"]+)"', page) if not link.startswith("#")]
    assert [link.split("/")[0] for link in links] == list(SUBFOLDERS)
    assert all((out / link).exists() for link in links)
    rows = json.loads((out / "choices.json").read_text())
    assert [row["name"] for row in rows] == names
    assert result.to_markdown().count("\n") == 2 + len(names)
    op = equivae.load_latent_op(out / "fitted")
    assert op.latent(torch.zeros(1, 4, 8, 8)).shape == (1, 4, 8, 8)
    loaded = equivae.load_vae(out / "symmetrized")
    # Where the image is as large as the demo's own, the seam is a small part of it.
    whole, quick = load_images(equivae.zoo.photographs(256)), MeasureOptions(progress=False)
    plain, exact = (
        measure(equivae.Autoencoder(vae), whole, [], quick).reconstruction_psnr
        for vae in (equivae.zoo.load(), loaded)
    )
    assert exact > plain - 0.1
    x = equivae.zoo.photographs(64)[:1]
    view, turned = equivae.Autoencoder(loaded), equivae.get_transform("rot180")
    with torch.no_grad():
        error = view.encode(turned.pixel(x)) - turned.latent(view.encode(x))
    assert error.abs().max() < 1e-4


def test_re_encoding_is_what_evaluate_measures() -> None:
    photographs, turned = equivae.zoo.photographs(64), equivae.get_transform("rot180")
    tested = Ways(photographs, turned)
    tested.add("untouched", equivae.zoo.load(), turned)
    tested.add_reencoded(equivae.zoo.load())
    options = MeasureOptions(ceiling=False, reencode=True, progress=False)
    view = equivae.Autoencoder(equivae.zoo.load())
    expected = measure(view, load_images(photographs), [turned], options).transforms["rot180"]
    (_, found) = tested.choices
    assert found.round_trip_psnr == pytest.approx(expected.reencoded_psnr, abs=1e-4)
    assert tested.pictures["re-encoded"].shape == (3, 64, 64)
