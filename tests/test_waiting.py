"""No step waits for the device: a number is read where a record is due, and nowhere else."""

from __future__ import annotations

import traceback
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import equivae
from equivae.training.state import RunState
from equivae.training.trainer import Hook, Trainer
from models import noise, tiny_kl

DATA = Path(equivae.data.__file__).parent


class Reads(TorchDispatchMode):
    """Counts what `item()`, `float`, `bool` and `tolist` come down to, in torch's own code too.

    Not where images are read, which are on the CPU in any case.
    """

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            files = {frame.f_code.co_filename for frame, _ in traceback.walk_stack(None)}
            self.count += not any(Path(file).parent == DATA for file in files)
        return func(*args, **(kwargs or {}))


class Steps(Hook):
    """What a count rose by in every step."""

    def __init__(self, count: Any) -> None:
        self.count, self.last, self.rises = count, 0, []

    def on_start(self, state: RunState) -> None:
        self.last = self.count()

    def on_step(self, state: RunState) -> None:
        now = self.count()
        self.rises.append(now - self.last)
        self.last = now


def train(
    folder: Path, steps: Steps, mode: Any, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> None:
    fit = Trainer.fit

    def watched(trainer: Any, batches: Any, state: Any, most: int, hooks: Any) -> None:
        with mode:
            fit(trainer, batches, state, most, [*hooks, steps])

    monkeypatch.setattr("equivae.training.trainer.Trainer.fit", watched)
    equivae.finetune(
        tiny_kl(),
        noise(24, 3, 16, 16),
        "rot180",
        folder,
        validation_images=noise(2, 3, 16, 16, seed=1),
        train_batch_size=4,
        max_train_steps=6,
        logging_steps=4,
        checkpointing_steps=100,
        bottleneck_steps=0,
        progress=False,
        **options,
    )


@pytest.mark.parametrize(
    "options", [{"use_ema": True, "terms": "total_variation=0.1"}, {"schedule": "dual"}]
)
def test_a_number_is_read_where_a_record_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    reads = Reads()
    steps = Steps(lambda: reads.count)
    train(tmp_path / "out", steps, reads, monkeypatch, **options)
    assert len(steps.rises) == 6
    assert steps.rises[3] > 0  # it counts
    assert [steps.rises[i] for i in (1, 2, 4)] == [0, 0, 0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_step_waits_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        steps = Steps(lambda: sum("synchroniz" in str(one.message) for one in told))
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train(tmp_path / "out", steps, nullcontext(), monkeypatch, mixed_precision="bf16")
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert steps.rises[3] > 0
    assert [steps.rises[i] for i in (1, 2, 4)] == [0, 0, 0]
