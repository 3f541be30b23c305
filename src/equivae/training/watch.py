"""Losses and weights under watch, without waiting for the device at every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivae.errors import NonFiniteLossError
from equivae.processes import gathered
from equivae.training.checkpoints import list_checkpoints

__all__ = ["Watch", "check_weights"]


class Watch:
    """Mean losses between two records, and the first bad step, kept on the device until asked for."""

    def __init__(self, device: torch.device) -> None:
        self.first_bad = torch.full((), torch.inf, device=device)
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def see(self, loss: Tensor, terms: Mapping[str, Tensor], step: int) -> None:
        bad = torch.where(torch.isfinite(loss), torch.inf, float(step))
        self.first_bad = torch.minimum(self.first_bad, bad)
        for name, value in {"loss": loss, **terms}.items():
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def record(self, output_dir: Path) -> dict[str, float]:
        """The means over all processes since the last record; `NonFiniteLossError` for a bad loss."""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for part in self.pending(output_dir):
            for name, total in part["sums"].items():
                sums[name] = sums.get(name, 0.0) + total
                counts[name] = counts.get(name, 0) + part["counts"][name]
        self.sums, self.counts = {}, {}
        return {name: total / counts[name] for name, total in sums.items()}

    def pending(self, output_dir: Path) -> list[dict[str, Any]]:
        """Sums and counts since the last record, of every process."""
        own = {
            "bad": float(self.first_bad),
            "sums": {name: float(total) for name, total in self.sums.items()},
            "counts": dict(self.counts),
        }
        found = gathered(own)
        bad = min(part["bad"] for part in found)
        if bad < float("inf"):
            raise _diverged("the loss", int(bad), output_dir)
        return [{"sums": part["sums"], "counts": part["counts"]} for part in found]

    def go_on(self, pending: list[dict[str, Any]], process: int) -> None:
        """Take up the sums of a checkpoint, where it has some of this process."""
        if process < len(pending):
            own, device = pending[process], self.first_bad.device
            self.sums = {name: torch.tensor(v, device=device) for name, v in own["sums"].items()}
            self.counts = dict(own["counts"])


def check_weights(parameters: Iterable[Tensor], step: int, output_dir: Path) -> None:
    """Raise `NonFiniteLossError` before weights are saved that an infinite gradient has spoiled.

    The loss of that step was still finite; it is the next one that would show it.
    """
    finite = torch.stack([torch.isfinite(parameter).all() for parameter in parameters])
    if not finite.all():
        raise _diverged("a weight", step, output_dir)


def _diverged(what: str, step: int, output_dir: Path) -> NonFiniteLossError:
    kept = list_checkpoints(output_dir)
    where = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was due yet"
    return NonFiniteLossError(
        f"{what} became NaN or infinite at step {step}; {where}. Lower the learning rate, or use "
        "mixed_precision='bf16' or 'no' instead of 'fp16'.",
        step,
    )
