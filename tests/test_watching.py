"""What a run tells while it goes on: trackers, the best VAE so far, a profiler's trace."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from equivae import InputError, Report
from equivae.training import session
from models import ConvAE
from test_finetune import changed, finetune, weights


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Report, "figures", lambda self: {})
    monkeypatch.setattr(Report, "to_html", lambda self: "page")


def test_trackers_get_speed_memory_gradients_and_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []

    class Tracker:
        name = "stub"

        def log(self, values: dict[str, Any], step: int, **_: Any) -> None:
            told.append({**values, "at": step})

        def finish(self) -> None: ...

    def accelerator(*given: Any) -> Accelerator:
        made = real(*given)
        made.trackers = [Tracker()]
        return made

    real = session._accelerator
    monkeypatch.setattr(session, "_accelerator", accelerator)
    options = {"max_train_steps": 6, "logging_steps": 2, "validation_steps": 3}
    result = finetune(tmp_path / "a", ConvAE(), **options)
    steps = [record for record in told if "loss" in record]
    assert [record["at"] for record in steps] == [2, 4, 6]
    for record in steps:
        assert 0 < record["images_per_second"] < 1e6
        assert 10 < record["peak_memory_mb"] < 1e6
        assert 0 < record["gradient_norm"] < 1e3
        assert record["learning_rate"] >= 0
    validations = [record for record in told if "validation_loss" in record]
    assert {"validation/reconstruction", "validation/equivariance/rot180"} <= validations[0].keys()
    assert not {"gradient_norm", "images_per_second"} & {k for r in result.history for k in r}

    told.clear()
    finetune(tmp_path / "b", ConvAE(), recipe="fitted", kernel_size=3, crop_size=None, **options)
    rates = next(record for record in told if "loss" in record)
    assert {"learning_rate/0", "learning_rate/1"} <= rates.keys()


@pytest.mark.parametrize("metric", ["validation_loss", "validation/reconstruction"])
def test_the_best_vae_is_kept(tmp_path: Path, metric: str) -> None:
    options = {"learning_rate": 0.5, "lr_scheduler": "constant", "lr_warmup_steps": 0}
    options |= {"validation_steps": 1, "checkpointing_steps": 1, "checkpoints_total_limit": None}
    whole = finetune(tmp_path / "a", ConvAE(), keep_best=metric, max_train_steps=8, **options)
    values = {r["step"]: r[metric] for r in whole.history if metric in r}
    best = min(values, key=lambda step: values[step])
    assert best < 8  # the last is not the best, else this shows nothing
    folder = tmp_path / "a" / "best"
    assert json.loads((folder / "best.json").read_text())["step"] == best
    saved = load_file(folder / "model.safetensors")
    there = load_file(tmp_path / "a" / f"checkpoint-{best}" / "model.safetensors")
    assert all(
        there[f"vae.{n}"].equal(t) if f"vae.{n}" in there else True for n, t in saved.items()
    )
    assert changed(weights(whole.vae), saved)

    (tmp_path / "a" / "checkpoint-8").rename(tmp_path / "gone")
    finetune(
        tmp_path / "a", ConvAE(), keep_best=metric, max_train_steps=8,
        resume_from_checkpoint="latest", **options,
    )  # fmt: skip
    assert json.loads((folder / "best.json").read_text())["step"] == best
    plain = finetune(tmp_path / "b", ConvAE(), max_train_steps=8, **options)
    assert changed(weights(whole.vae), weights(plain.vae)) == set()  # looking changes nothing


@pytest.mark.parametrize("metric", ["fid", "validation/equivariance/hflip"])
def test_a_metric_that_validation_does_not_measure_is_refused(tmp_path: Path, metric: str) -> None:
    with pytest.raises(InputError, match=r"is not measured in validation\. "):
        finetune(tmp_path / "out", ConvAE(), keep_best=metric)
    assert not (tmp_path / "out").exists()


def test_a_trace_of_a_few_steps(tmp_path: Path) -> None:
    result = finetune(tmp_path / "a", ConvAE(), profile=True, max_train_steps=6)
    trace = json.loads((tmp_path / "a" / "logs" / "trace.json").read_text())
    named = {event.get("name") for event in trace["traceEvents"]}
    assert any("convolution_backward" in str(name) for name in named)
    plain = finetune(tmp_path / "b", ConvAE(), max_train_steps=6)
    assert changed(weights(plain.vae), weights(result.vae)) == set()


def test_a_run_that_fails_leaves_no_profiler_behind(tmp_path: Path) -> None:
    def fail(decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if decoded.requires_grad:
            raise ZeroDivisionError
        return (decoded - target).square().mean()

    with pytest.raises(ZeroDivisionError):
        finetune(tmp_path, ConvAE(), profile=True, reconstruction=fail)
    with torch.profiler.profile() as again:
        torch.ones(3).sum()
    assert len(again.key_averages()) > 0


class Wandb(ModuleType):
    """What accelerate asks of wandb: a run with an id, that of an earlier one where that is passed."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.asked: list[dict[str, Any]] = []
        self.steps: dict[str, list[int]] = {}
        self.config = SimpleNamespace(update=lambda values, **_: None)
        self.Image = lambda image: image

    def init(self, **asked: Any) -> SimpleNamespace:
        self.asked.append(asked)
        name = asked.get("id", f"run-{len(self.asked)}")
        steps = self.steps.setdefault(name, [])
        return SimpleNamespace(
            id=name, log=lambda values, step, **_: steps.append(step), finish=lambda: None
        )


def test_a_resumed_run_goes_on_in_its_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import tracking

    stub = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.setattr(tracking, "_available_trackers", [tracking.LoggerType.WANDB])
    options = {"report_to": "wandb", "tracker_project_name": "vaes", "tracker_run_name": "first"}
    options |= {"logging_steps": 1, "checkpoints_total_limit": None, "checkpointing_steps": 1}
    finetune(tmp_path / "a", ConvAE(), max_train_steps=2, **options)
    assert stub.asked == [{"project": "vaes", "name": "first"}]
    goes_on = {**options, "resume_from_checkpoint": "latest"}
    finetune(tmp_path / "a", ConvAE(), max_train_steps=3, **goes_on)
    assert stub.asked[1] == {"project": "vaes", "name": "first", "id": "run-1", "resume": "allow"}
    assert list(stub.steps) == ["run-1"]
    assert set(stub.steps["run-1"]) == {1, 2, 3}
    # A run that goes on in another folder is another run.
    start = str(tmp_path / "a" / "checkpoint-2")
    finetune(tmp_path / "b", ConvAE(), max_train_steps=3, **options, resume_from_checkpoint=start)
    assert "id" not in stub.asked[2]


def test_a_name_that_no_tracker_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"tracker_run_name does nothing with no report_to; it needs"
    ):
        finetune(tmp_path / "a", ConvAE(), tracker_run_name="first")
    assert not (tmp_path / "a").exists()
