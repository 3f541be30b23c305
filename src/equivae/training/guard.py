"""What keeps a bad batch from spoiling a run: steps that are left out, and when that does not help."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from equivae.processes import gathered
from equivae.training.state import RunState
from equivae.training.trainer import Hook
from equivae.training.watch import diverged

__all__ = ["Guard", "Names"]

logger = logging.getLogger(__name__)

_SPIKES = 10  # in a row, after which the loss has a new level
_OVERFLOWS = 40  # in a row; halving the scale of fp16 as often leaves nothing of a number
_MEMORY = 0.95  # of the usual loss, per step


class Names(Hook):
    """Remembers which images the steps since the last record had, on this process.

    Args:
        names_of: the names of a batch, by its pass and the samples before it.
    """

    def __init__(self, names_of: Callable[[int, int], list[str]]) -> None:
        self.names_of = names_of
        self._places: dict[int, list[tuple[int, int]]] = {}
        self._at = (0, 0)

    def on_start(self, state: RunState) -> None:
        self._at = state.epoch, state.samples

    def on_batch(self, loss: Tensor, terms: dict[str, Tensor], state: RunState) -> None:
        if state.epoch != self._at[0]:
            self._at = state.epoch, 0
        self._places.setdefault(state.step + 1, []).append(self._at)
        self._at = state.epoch, state.samples

    def forget(self) -> None:
        """Those of steps whose losses are known to be numbers."""
        self._places = {}

    def of(self, step: int) -> list[str]:
        """The names of a step's images."""
        found: list[str] = []
        for epoch, samples in self._places.get(step, []):
            found += self.names_of(epoch, samples)
        return found


class Guard(Hook):
    """Leaves out a step whose loss is far above the usual, and ends a run that cannot take any step.

    Args:
        factor: times the usual loss, a running mean, from which on a step is left out; `None` for never.
            After ten in a row the loss has a new level, and is the usual one.
        names: of the images of a step.
        output_dir: of the run, for messages.
    """

    def __init__(
        self, factor: float | None, names: Callable[[int], list[str]], output_dir: Path
    ) -> None:
        self.factor, self.names, self.output_dir = factor, names, output_dir
        self._losses: list[Tensor] = []
        self._spikes = self._overflows = 0

    def on_batch(self, loss: Tensor, terms: dict[str, Tensor], state: RunState) -> None:
        if self.factor is not None:
            self._losses.append(loss)

    def refuses(self, state: RunState) -> bool:
        if self.factor is None:
            return False
        told = gathered(float(torch.stack(self._losses).mean()))
        self._losses = []
        loss = sum(told) / len(told)
        if not math.isfinite(loss):  # which is no spike: it ends the run, or overflowed under fp16
            self._spikes = 0
            return False
        spike = 0 < self.factor * state.usual_loss < loss
        if spike and self._spikes < _SPIKES:
            self._spikes += 1
            logger.warning(
                "step %d is left out once: its loss of %.4g is more than %g times the usual %.4g "
                "(images %s).",
                state.step + 1,
                loss,
                self.factor,
                state.usual_loss,
                ", ".join(self.names(state.step + 1)[:8]),
            )
            return True
        kept = _MEMORY if state.usual_loss and not spike else 0.0
        state.usual_loss = kept * state.usual_loss + (1 - kept) * loss
        self._spikes = 0
        return False

    def on_skip(self, state: RunState) -> None:
        if self._spikes:
            return
        self._overflows += 1
        if self._overflows == _OVERFLOWS:
            what = f"{_OVERFLOWS} steps in a row, whatever the scale of fp16, the gradient"
            raise diverged(what, state.step + 1, self.output_dir, self.names(state.step + 1))

    def on_step(self, state: RunState) -> None:
        self._overflows = 0
