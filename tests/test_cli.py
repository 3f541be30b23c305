"""The command line as a user meets it: exit codes, one-sentence errors, files."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from equivae.cli import main
from tiny_pipeline import tiny_vae


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for i in range(4):
        pixels = torch.randint(0, 256, (40, 36, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_vae().save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["equivae", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    code = stop.value.code
    return code if isinstance(code, int) else 0


def finetune_arguments(model: Path, photos: Path, out: Path) -> list[object]:
    return [
        *("finetune", "--pretrained_model_name_or_path", model, "--train_data_dir", photos),
        *("--output_dir", out, "--resolution", 32, "--max_train_steps", 2, "--train_batch_size", 2),
    ]


def test_finetune_then_evaluate(
    monkeypatch: pytest.MonkeyPatch, model: Path, photos: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "out", tmp_path / "report"
    assert call(monkeypatch, *finetune_arguments(model, photos, out)) == 0
    AutoencoderKL.from_pretrained(out)
    code = call(
        monkeypatch,
        *("evaluate", "--pretrained_model_name_or_path", out, "--baseline", model),
        *("--data_dir", photos, "--resolution", 32, "--transforms", "hflip,c4"),
        *("--output_dir", report),
    )
    assert code == 0
    content = json.loads((report / "report.json").read_text())
    assert set(content["metrics"]["transforms"]) == {"hflip", "rot90", "rot180", "rot270"}
    assert content["before"]["reconstruction_mse"] != content["metrics"]["reconstruction_mse"]
    assert (report / "panels_hflip.png").exists()


def test_a_recipe_sets_what_is_not_given(
    monkeypatch: pytest.MonkeyPatch, model: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = finetune_arguments(model, photos, out)
    assert call(monkeypatch, *arguments, "--recipe", "published", "--no_use_ema") == 0
    settings = json.loads((out / "report.json").read_text())["settings"]
    assert (settings["recipe"], settings["schedule"]) == ("published", "dual")
    assert settings["learning_rate"] == 5e-5
    assert settings["train_batch_size"] == 2  # given, so it stands above the recipe's 3


def test_resume_latest_starts_afresh_and_then_goes_on(
    monkeypatch: pytest.MonkeyPatch, model: Path, photos: Path, tmp_path: Path
) -> None:
    arguments = finetune_arguments(model, photos, tmp_path / "out")
    arguments += ["--resume_from_checkpoint", "latest"]
    assert call(monkeypatch, *arguments) == 0
    assert call(monkeypatch, *arguments) == 0


@pytest.mark.parametrize("command", ["transforms", "recipes", "--help", "finetune --help"])
def test_listings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert call(monkeypatch, *command.split()) == 0
    shown = capsys.readouterr().out
    wanted = {
        "transforms": "rot180",
        "recipes": "alias",  # of an older name
        "--help": "finetune",
        "finetune --help": "learning_rate",
    }
    assert wanted[command] in shown


BAD = {
    "unknown transform": (["--transforms", "rot18"], "'rot180'"),
    "unknown recipe": (["--recipe", "publishd"], "'published'"),
    "bad learning rate": (["--learning_rate", "-1"], "above 0"),
    "bad choice": (["--train", "decodr"], "'decoder'"),
    "resolution off the factor": (["--resolution", "33"], "factor 2"),
    "missing folder": (["--train_data_dir", "nowhere"], "does not exist"),
    "two sources": (["--dataset_name", "x"], "one of them"),
    "missing model": (["--pretrained_model_name_or_path", "nowhere.safetensors"], "no file"),
    "missing checkpoint": (["--resume_from_checkpoint", "checkpoint-9"], "no checkpoint"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: Path,
    photos: Path,
    tmp_path: Path,
    case: str,
) -> None:
    extra, said = BAD[case]
    out = tmp_path / "out"
    assert call(monkeypatch, *finetune_arguments(model, photos, out), *extra) == 2
    message = capsys.readouterr().err
    assert said in " ".join(message.split())
    assert len(re.findall(r"^error:|─ Error ─", message, re.MULTILINE)) == 1
    assert "Traceback" not in message
    assert not out.exists() or not list(out.iterdir())


def test_a_pipeline_folder_without_a_vae_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    photos: Path,
    tmp_path: Path,
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert call(monkeypatch, *finetune_arguments(empty, photos, tmp_path / "out")) == 2
    assert "holds no autoencoder" in " ".join(capsys.readouterr().err.split())


def test_a_folder_with_files_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: Path,
    photos: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    assert call(monkeypatch, *finetune_arguments(model, photos, out)) == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["thesis.tex"]


def test_a_diverging_run_exits_with_1_and_says_the_step(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: Path,
    photos: Path,
    tmp_path: Path,
) -> None:
    arguments = finetune_arguments(model, photos, tmp_path / "out")
    arguments += ["--learning_rate", "1e38", "--max_train_steps", "20", "--max_grad_norm", "0"]
    assert call(monkeypatch, *arguments) == 1
    message = " ".join(capsys.readouterr().err.split())
    assert "at step" in message
    assert "Traceback" not in message


def test_fit_then_evaluate_the_operator(
    monkeypatch: pytest.MonkeyPatch, model: Path, photos: Path, tmp_path: Path
) -> None:
    folder, report = tmp_path / "op", tmp_path / "report"
    arguments = ["--pretrained_model_name_or_path", model, "--resolution", 32]
    code = call(
        monkeypatch,
        *("fit", *arguments, "--train_data_dir", photos, "--output_dir", folder),
        *("--transforms", "hflip", "--kernel_size", 1),
    )
    assert code == 0
    code = call(
        monkeypatch,
        *("evaluate", *arguments, "--data_dir", photos, "--transforms", "hflip"),
        *("--latent_op", folder, "--output_dir", report),
    )
    assert code == 0
    content = json.loads((report / "report.json").read_text())
    assert set(content["metrics"]["transforms"]) == {"hflip", "hflip_fitted"}


def test_fit_refuses_a_group(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: Path,
    photos: Path,
    tmp_path: Path,
) -> None:
    arguments = ["--pretrained_model_name_or_path", model, "--train_data_dir", photos]
    out = tmp_path / "op"
    assert (
        call(monkeypatch, "fit", *arguments, "--transforms", "rot90,hflip", "--output_dir", out)
        == 2
    )
    assert "one transform" in capsys.readouterr().err
