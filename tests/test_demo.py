"""The embedded VAE is what its card says, and the demo does what it promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

import equivae
from equivae.data import load_images
from equivae.demo import SUBFOLDERS, demo, finetune_plain
from equivae.evaluation.metrics import MeasureOptions, measure


@pytest.fixture
def small_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the pixels to measure on; `make demo` has them all."""
    whole = equivae.zoo.photographs
    monkeypatch.setattr(equivae.zoo, "photographs", lambda resolution=128: whole(resolution))


def test_embedded_vae_is_good_and_far_from_equivariant(shared_data: Path) -> None:
    images = load_images(shared_data / "kodak", resolution=256)
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


def test_the_demo_shows_every_way(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = demo(out, max_train_steps=2, progress=False)
    names = [one.name for one in result.choices]
    assert names == ["untouched", "fitted", "symmetrized", "fitted, fine-tuned", "fine-tuned"]
    untouched, fitted, symmetrized = (result[name] for name in names[:3])
    assert untouched.gap_db > 8
    # The numbers that make these two worth having, on photographs that nothing was fitted on.
    assert fitted.reconstruction_psnr == untouched.reconstruction_psnr
    assert fitted.gap_db < 1.3
    assert symmetrized.gap_db < 1e-4
    assert symmetrized.reconstruction_psnr > untouched.reconstruction_psnr - 0.1
    assert [one.latents_stay_valid for one in result.choices] == [True, True, False, True, False]
    assert {path.name for path in out.iterdir()} == {
        *SUBFOLDERS,
        *("choices.json", "choices.md", "choices.png"),
    }
    rows = json.loads((out / "choices.json").read_text())
    assert [row["name"] for row in rows] == names
    assert result.to_markdown().count("\n") == 2 + len(names)
    op = equivae.load_latent_op(out / "fitted")
    assert op.latent(torch.zeros(1, 4, 8, 8)).shape == (1, 4, 8, 8)
    loaded = equivae.load_vae(out / "symmetrized")
    x = equivae.zoo.photographs(64)[:1]
    view, turned = equivae.Autoencoder(loaded), equivae.get_transform("rot180")
    with torch.no_grad():
        error = view.encode(turned.pixel(x)) - turned.latent(view.encode(x))
    assert error.abs().max() < 1e-4
