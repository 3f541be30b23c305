"""Losses and weights under watch, without waiting for the device at every step."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from equivae.errors import NonFiniteLossError
from equivae.training.checkpoints import list_checkpoints

__all__ = ["Watch", "check_weights"]


class Watch:
    """Mean losses between two records, and the first bad step, kept on the device until asked for."""

    def __init__(self, device: torch.device) -> None:
        self.first_bad = torch.full((), torch.inf, device=device)
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def see(self, loss: Tensor, terms: dict[str, Tensor], step: int) -> None:
        bad = torch.where(torch.isfinite(loss), torch.inf, float(step))
        self.first_bad = torch.minimum(self.first_bad, bad)
        for name, value in {"loss": loss, **terms}.items():
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def record(self, output_dir: Path) -> dict[str, float]:
        """The means since the last record; `NonFiniteLossError` if a loss was no number."""
        if torch.isfinite(self.first_bad):
            raise _diverged("the loss", int(self.first_bad), output_dir)
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


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
