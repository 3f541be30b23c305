"""A run that was cut off goes on as if it had not been."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from equivae import InputError, Report, symmetrize
from equivae.cli import main
from equivae.training import outcome
from equivae.training.checkpoints import find_checkpoint, list_checkpoints
from models import ConvAE, tiny_kl
from test_finetune import IMAGES, changed, finetune, weights


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    monkeypatch.setattr(Report, "figures", lambda self: {})


def without_time(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (3, {}),  # in the middle of the first epoch of four steps
        (6, {}),
        (4, {}),  # where one ends
        (5, {"use_ema": True}),
        (3, {"gradient_accumulation_steps": 2}),
        (3, {"gradient_accumulation_steps": 3, "use_ema": True, "train_batch_size": 1}),
        (6, {"train": "decoder", "schedule": "dual"}),
        (5, {"sample_posterior": True, "validation_steps": 3, "encoder_weight": 0.1}),
        (5, {"lr_scheduler": "linear", "lr_warmup_steps": 2, "mixed_precision": "bf16"}),
    ],
)
def test_resuming_gives_the_same_weights_bit_for_bit(tmp_path, step, options):
    options = {"max_train_steps": 8, "logging_steps": 2, **options}
    checkpoints = {"checkpointing_steps": step, "checkpoints_total_limit": None}
    whole = finetune(tmp_path / "whole", **options, **checkpoints)

    shutil.copytree(
        tmp_path / "whole" / f"checkpoint-{step}", tmp_path / "cut" / f"checkpoint-{step}"
    )
    resumed = finetune(tmp_path / "cut", **options, **checkpoints, resume_from_checkpoint="latest")
    assert changed(weights(whole.vae), weights(resumed.vae)) == set()
    assert without_time(resumed.history) == without_time(whole.history)
    assert resumed.report.metrics == whole.report.metrics
    assert resumed.report.before == whole.report.before
    saved = load_file(tmp_path / "cut" / "diffusion_pytorch_model.safetensors")
    assert changed(weights(whole.vae), saved) == set()


def test_random_layers_go_on_with_their_draws(tmp_path):
    class Dropout(ConvAE):
        def decode(self, latents):
            return super().decode(nn.functional.dropout(latents, 0.5, self.training))

    options = {"max_train_steps": 7, "checkpointing_steps": 2, "checkpoints_total_limit": None}
    whole = finetune(tmp_path, Dropout(), **options)
    for step in (2, 4, 6):
        folder = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / f"checkpoint-{step}", folder / f"checkpoint-{step}")
        resumed = finetune(folder, Dropout(), **options, resume_from_checkpoint="latest")
        assert changed(weights(whole.vae), weights(resumed.vae)) == set()


class Cut(Exception):
    """Someone pulled the plug."""


def test_a_run_cut_off_in_the_middle(tmp_path):
    calls = []

    def pull(decoded, target):
        if decoded.requires_grad:
            calls.append(1)
        if len(calls) > 5 * 2:
            raise Cut
        return (decoded.float() - target.float()).square().mean()

    dual = {"max_train_steps": 7, "checkpointing_steps": 2, "use_ema": True, "schedule": "dual"}
    whole = finetune(tmp_path / "dual", ConvAE(), **dual)
    with pytest.raises(Cut):
        finetune(tmp_path / "cut", ConvAE(), **dual, reconstruction=_named("mse", pull))
    assert [p.name for p in list_checkpoints(tmp_path / "cut")] == ["checkpoint-2", "checkpoint-4"]
    resumed = finetune(tmp_path / "cut", ConvAE(), **dual, resume_from_checkpoint="latest")
    assert changed(weights(whole.vae), weights(resumed.vae)) == set()


def _named(name, function):
    function.__name__ = name
    return function


def test_a_finished_run_is_brought_back(tmp_path):
    first = finetune(tmp_path, ConvAE(), use_ema=True)
    again = finetune(tmp_path, ConvAE(), use_ema=True, resume_from_checkpoint="latest")
    assert changed(weights(first.vae), weights(again.vae)) == set()
    assert without_time(again.history) == without_time(first.history)


def test_latest_starts_afresh_in_a_new_folder(tmp_path):
    fresh = finetune(tmp_path / "a", ConvAE())
    latest = finetune(tmp_path / "b", ConvAE(), resume_from_checkpoint="latest")
    assert changed(weights(fresh.vae), weights(latest.vae)) == set()


def test_latest_starts_afresh_after_a_run_cut_off_before_its_first_checkpoint(tmp_path):
    def pull(decoded, target):
        if decoded.requires_grad:
            raise Cut
        return (decoded - target).square().mean()

    options = {"train": "decoder", "latent_cache_mb": 0}
    with pytest.raises(Cut):
        finetune(tmp_path, ConvAE(), **options, reconstruction=pull)
    finetune(tmp_path, ConvAE(), **options, resume_from_checkpoint="latest")
    assert (tmp_path / "model.safetensors").is_file()


def test_resuming_by_name_and_by_path(tmp_path):
    options = {"checkpointing_steps": 1, "checkpoints_total_limit": None}
    whole = finetune(tmp_path / "a", ConvAE(), **options)
    by_name = finetune(tmp_path / "a", ConvAE(), resume_from_checkpoint="checkpoint-1", **options)
    assert changed(weights(whole.vae), weights(by_name.vae)) == set()
    path = tmp_path / "a" / "checkpoint-2"
    by_path = finetune(tmp_path / "b", ConvAE(), resume_from_checkpoint=str(path))
    assert changed(weights(whole.vae), weights(by_path.vae)) == set()


def test_resuming_from_elsewhere_does_not_write_over_foreign_files(tmp_path):
    finetune(tmp_path / "a", ConvAE())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.safetensors").write_text("mine")
    with pytest.raises(InputError, match="holds files already"):
        finetune(
            tmp_path / "b", ConvAE(), resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3")
        )
    assert (tmp_path / "b" / "model.safetensors").read_text() == "mine"


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 2e-3},
        {"transforms": "hflip"},
        {"max_grad_norm": 2.0},
        {"train": "decoder"},
        {"seed": 1},
        {"recipe": "decoder", "train": "all"},
        {"schedule": "dual"},
        {"use_ema": True},
        {"max_train_steps": 2},
        {"train_batch_size": 3},
        {"encoder_weight": 0.5},
        {"reconstruction_weight": 0.5},
        {"sample_posterior": True},
        {"max_grad_norm": 0.5},
        {"adam_beta2": 0.9},
        {"adam_weight_decay": 0.1},
        {"lr_warmup_steps": 0},
        {"mixed_precision": "bf16"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_resuming_with_other_settings_is_refused(checkpointed, tmp_path, changes):
    shutil.copytree(checkpointed, tmp_path / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    name = next(iter(changes))
    with pytest.raises(
        InputError, match=rf"is of a run with {name}=.*resume with the same options"
    ):
        finetune(tmp_path / "run", ConvAE(), **changes, resume_from_checkpoint="latest")
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


@pytest.fixture(scope="module")
def checkpointed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpointed") / "run"
    finetune(folder, ConvAE())
    return folder


def test_resuming_with_another_model_is_refused(checkpointed, tmp_path):
    shutil.copytree(checkpointed, tmp_path / "run")
    with pytest.raises(InputError):
        finetune(tmp_path / "run", tiny_kl(), resume_from_checkpoint="latest")


def test_the_oldest_checkpoints_go(tmp_path):
    options = {"checkpointing_steps": 1, "max_train_steps": 4}
    finetune(tmp_path / "two", ConvAE(), checkpoints_total_limit=2, **options)
    assert [p.name for p in list_checkpoints(tmp_path / "two")] == ["checkpoint-3", "checkpoint-4"]


def test_checkpoints_are_found_in_the_order_of_their_steps(tmp_path):
    for step in (2, 10, 9):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "run.json").write_text("{}")
    (tmp_path / "checkpoint-best").mkdir()
    assert [p.name for p in list_checkpoints(tmp_path)] == [f"checkpoint-{i}" for i in (2, 9, 10)]
    assert find_checkpoint(tmp_path, "latest").name == "checkpoint-10"
    assert find_checkpoint(tmp_path, None) is None
    with pytest.raises(InputError, match=r"no checkpoint 'checkpoint-3'.*checkpoint-2"):
        find_checkpoint(tmp_path, "checkpoint-3")


def test_checkpoints_of_another_program_are_not_ours(tmp_path):
    (tmp_path / "checkpoint-500").mkdir()
    (tmp_path / "checkpoint-500" / "model.safetensors").write_text("theirs")
    with pytest.raises(InputError, match=r"holds files already \(checkpoint-500\)"):
        finetune(tmp_path, ConvAE(), resume_from_checkpoint="latest")
    assert (tmp_path / "checkpoint-500" / "model.safetensors").read_text() == "theirs"


def test_the_state_of_a_run_is_plain_json(checkpointed):
    state = json.loads((checkpointed / "checkpoint-3" / "run.json").read_text())
    assert state["step"] == 3
    assert state["settings"]["transforms"] == ["rot180"]


# Lengthened, damaged, of something else ------------------------------------------------------------


def test_a_constant_schedule_is_lengthened_exactly(tmp_path):
    options = {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 2, "logging_steps": 2}
    whole = finetune(tmp_path / "whole", ConvAE(), max_train_steps=7, **options)
    finetune(tmp_path / "parts", ConvAE(), max_train_steps=3, **options)
    longer = {"max_train_steps": 7, "resume_from_checkpoint": "latest", **options}
    resumed = finetune(tmp_path / "parts", ConvAE(), **longer)
    assert changed(weights(whole.vae), weights(resumed.vae)) == set()


def test_another_schedule_says_what_becomes_of_it(tmp_path, caplog):
    finetune(tmp_path, ConvAE(), max_train_steps=3, lr_scheduler="cosine")
    options = {"max_train_steps": 5, "resume_from_checkpoint": "latest"}
    result = finetune(tmp_path, ConvAE(), lr_scheduler="cosine", **options)
    assert [r["step"] for r in result.history if "loss" in r][-1] == 5
    (message,) = caplog.messages
    assert "from step 4 on the learning rate follows the 'cosine' schedule over 5 steps" in message


def test_more_epochs_lengthen_a_run(tmp_path):
    options = {
        "max_train_steps": None,
        "lr_scheduler": "constant",
        "resume_from_checkpoint": "latest",
    }
    finetune(tmp_path, ConvAE(), num_train_epochs=1, **options)
    result = finetune(tmp_path, ConvAE(), num_train_epochs=2, **options)
    assert result.report.settings["max_train_steps"] == 8


@pytest.mark.parametrize("images", [IMAGES + 0.01, IMAGES.flip(0)], ids=["values", "order"])
def test_other_images_of_the_same_number_are_noticed(checkpointed, tmp_path, images):
    shutil.copytree(checkpointed, tmp_path / "run")
    with pytest.raises(InputError, match="not the images of the run"):
        finetune(tmp_path / "run", ConvAE(), images=images, resume_from_checkpoint="latest")


def test_another_vae_of_the_same_shape_is_noticed(checkpointed, tmp_path):
    shutil.copytree(checkpointed, tmp_path / "run")
    with pytest.raises(InputError, match="is of a run of another VAE"):
        finetune(tmp_path / "run", ConvAE(seed=1), resume_from_checkpoint="latest")


FILES = [
    "model.safetensors",
    "optimizer.bin",
    "scheduler.bin",
    "random_states_0.pkl",
    "ema.safetensors",
]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "run"
    finetune(folder, ConvAE(), checkpointing_steps=2, use_ema=True)
    return folder


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
@pytest.mark.parametrize("name", [*FILES, "run.json"])
def test_a_damaged_newest_checkpoint_is_named_and_passed_over(two, tmp_path, caplog, name, damage):
    run = tmp_path / "run"
    shutil.copytree(two, run)
    path = run / "checkpoint-3" / name
    content = bytearray(path.read_bytes())
    if damage == "missing" and name != "run.json":
        path.unlink()
    elif damage == "cut" or name == "run.json":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    options = {"checkpointing_steps": 2, "use_ema": True}
    with pytest.raises(InputError, match="checkpoint-3 is damaged"):
        finetune(run, ConvAE(), resume_from_checkpoint="checkpoint-3", **options)
    assert find_checkpoint(run, "latest").name == "checkpoint-2"
    assert any("checkpoint-3 is damaged" in message for message in caplog.messages)


def test_going_on_from_an_earlier_checkpoint_keeps_what_was_just_written(two, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(two, run)
    (run / "checkpoint-3").rename(run / "checkpoint-9")
    (run / "checkpoint-9" / "model.safetensors").write_bytes(b"damaged")
    options = {"checkpointing_steps": 2, "use_ema": True, "checkpoints_total_limit": 1}
    finetune(run, ConvAE(), resume_from_checkpoint="latest", **options)
    # The one that was left behind is of an earlier branch.
    assert [p.name for p in list_checkpoints(run)] == ["checkpoint-9", "checkpoint-3"]


def test_a_checkpoint_of_another_version_is_refused(two, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(two, run)
    path = run / "checkpoint-3" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "of_a_later_version": 1}))
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=r"run\.json is .*of another version .*of_a_later_version"):
        finetune(run, ConvAE(), use_ema=True, resume_from_checkpoint="checkpoint-3")
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_only_damaged_checkpoints_are_refused(two, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(two, run)
    for path in run.glob("checkpoint-*/optimizer.bin"):
        path.write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"every checkpoint in .* is damaged"):
        finetune(
            run, ConvAE(), checkpointing_steps=2, use_ema=True, resume_from_checkpoint="latest"
        )


@pytest.mark.filterwarnings("ignore:the latent op fitted")
def test_a_symmetrized_vae_goes_on_with_the_ops_that_its_elements_share(tmp_path, caplog):
    made = symmetrize(tiny_kl(), "c4", images=IMAGES, kernel_size=1, margin=2, progress=False)
    options = {
        "transforms": "rot90",
        "recipe": "symmetrized",
        "max_train_steps": 4,
        "checkpointing_steps": 2,
        "checkpoints_total_limit": None,
    }
    whole = finetune(tmp_path / "whole", vae=made, **options)
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "cut" / "checkpoint-2")
    resumed = finetune(tmp_path / "cut", vae=made, **options, resume_from_checkpoint="latest")
    assert changed(weights(whole.vae), weights(resumed.vae)) == set()
    assert "shared tensor" not in caplog.text


# Nothing left to do -------------------------------------------------------------------------------


def test_a_finished_run_ends_at_once_and_a_missing_report_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Report, "figures", lambda self: {})
    tiny_kl().save_pretrained(tmp_path / "vae")
    (tmp_path / "images").mkdir()
    for i in range(4):
        Image.effect_noise((16, 16), 90).convert("RGB").save(tmp_path / "images" / f"{i}.png")
    given = {
        "pretrained_model_name_or_path": "vae",
        "train_data_dir": "images",
        "output_dir": "run",
    }
    words = [f"--{name}={tmp_path / value}" for name, value in given.items()]
    words += ["--train_batch_size=2", "--bottleneck_steps=0", "--resume_from_checkpoint=latest"]
    measured = []
    usual = outcome.measure

    def measure(*arguments: Any, **options: Any) -> Any:
        measured.append(1)
        return usual(*arguments, **options)

    def run(*more: str) -> tuple[int, str]:
        measured.clear()
        monkeypatch.setattr(sys, "argv", ["equivae", "finetune", *words, *more])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), " ".join(capsys.readouterr().out.split())

    monkeypatch.setattr(outcome, "measure", measure)
    assert run("--max_train_steps=2")[0] == 0
    assert measured
    report = tmp_path / "run" / "report.json"
    written = report.read_bytes()
    code, said = run("--max_train_steps=2")
    assert code == 0
    assert "Step 2 of 2 is done; the report is in" in said
    assert not measured
    assert report.read_bytes() == written
    report.unlink()
    assert run("--max_train_steps=2")[0] == 0
    assert measured
    assert report.is_file()
    assert run("--max_train_steps=3")[0] == 0  # longer
    assert measured
    assert (tmp_path / "run" / "checkpoint-3").is_dir()
