"""The whole published experiment, against a complete tiny pipeline."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from forked import run_forked
from tiny_pipeline import save_tiny_pipeline

SCRIPT = Path(__file__).parents[1] / "examples" / "sotemix_rot180.py"
FIGURES = {
    "four_panels.png",
    "loss.png",
    "loss_per_epoch.png",
    "panels_rot180.png",
    "untouched_vae.png",
}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_forked(SCRIPT, *arguments)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def finished(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sotemix")
    done = run(*_options(pipeline, folder))
    assert done.returncode == 0, done.stderr
    assert "Round-trip MSE" in done.stdout
    return folder


def _options(pipeline: Path, folder: Path) -> list[object]:
    return [
        *("--model", pipeline, "--output_dir", folder, "--recipe", "published"),
        *("--num_images", 5, "--num_inference_steps", 2, "--generation_batch_size", 2),
        *("--resolution", 32, "--num_train_epochs", 2, "--checkpointing_steps", 2),
    ]


def test_writes_images_vae_report_and_every_figure(finished: Path) -> None:
    assert len(list((finished / "images").glob("*.png"))) == 5
    run_folder = finished / "published"
    assert {p.name for p in run_folder.iterdir()} >= FIGURES
    for name in FIGURES:
        with Image.open(run_folder / name) as image:
            assert min(image.size) > 200
    report = json.loads((run_folder / "report.json").read_text())
    # As published: five images give four to train on, two steps an epoch at batch size 3.
    assert report["settings"]["schedule"] == "dual"
    assert report["settings"]["max_train_steps"] == 4
    assert report["metrics"]["transforms"]["rot180"]["round_trip_mse"] > 0
    AutoencoderKL.from_pretrained(run_folder)


def test_goes_on_where_it_was(finished: Path, pipeline: Path, tmp_path: Path) -> None:
    # Two of the images are lost; they come back exactly as they were, since each has its own seed.
    before = {p.name: p.read_bytes() for p in (finished / "images").iterdir()}
    for name in ("00001.png", "00003.png"):
        (finished / "images" / name).unlink()
    weights = AutoencoderKL.from_pretrained(finished / "published").state_dict()
    done = run(*_options(pipeline, finished))
    assert done.returncode == 0, done.stderr
    after = {p.name: p.read_bytes() for p in (finished / "images").iterdir()}
    assert after == before
    again = AutoencoderKL.from_pretrained(finished / "published").state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_images_from_a_folder_and_the_default_recipe(
    pipeline: Path, finished: Path, tmp_path: Path
) -> None:
    done = run(
        *("--model", pipeline, "--images", finished / "images", "--output_dir", tmp_path / "out"),
        *("--resolution", 32, "--max_train_steps", 2),
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out" / "images").exists()
    assert (tmp_path / "out" / "equivae" / "report.md").exists()


def test_embedded_runs_without_a_model(tmp_path: Path) -> None:
    done = run(
        *("--embedded", "--output_dir", tmp_path, "--num_images", 6),
        *("--resolution", 32, "--max_train_steps", 2),
    )
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "equivae").iterdir()} >= FIGURES


@pytest.mark.parametrize("model", ["Disty0/SoteMix", "no/such/folder", "nowhere.safetensors"])
def test_without_model_it_names_the_offline_option(model: str, tmp_path: Path) -> None:
    done = run("--model", model, "--output_dir", tmp_path)
    assert done.returncode == 2
    assert "--embedded" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
