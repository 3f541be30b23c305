"""The best VAE of a run so far, kept beside its last one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from equivae.errors import InputError, did_you_mean
from equivae.training.state import RunState
from equivae.training.trainer import Hook

__all__ = ["BEST", "KeepBest", "check_metric"]

BEST = "best"
"""The folder, in a run's output folder, that holds the VAE of the best validation."""


def check_metric(metric: str | None, transforms: Iterable[str]) -> None:
    """`InputError` unless validation under these transforms measures it."""
    known = ["validation_loss", "validation/reconstruction"]
    known += [f"validation/equivariance/{name}" for name in transforms]
    if metric is not None and metric not in known:
        raise InputError(
            f"keep_best={metric!r} is not measured in validation.{did_you_mean(metric, known)}"
        )


class KeepBest(Hook):
    """Saves the VAE after a validation that is better than all before it.

    Args:
        metric: of the records of validation, the lower the better; `None` keeps nothing.
        save: writes the VAE, as the run stands.
    """

    def __init__(self, metric: str | None, save: Callable[[RunState], None]) -> None:
        self.metric, self.save = metric, save
        self._seen = 0

    def on_start(self, state: RunState) -> None:
        self._seen = len(state.history)

    def on_step(self, state: RunState) -> None:
        self._look(state)

    def on_epoch(self, state: RunState) -> None:
        self._look(state)

    def on_end(self, state: RunState) -> None:
        self._look(state)

    def _look(self, state: RunState) -> None:
        new, self._seen = state.history[self._seen :], len(state.history)
        for record in new if self.metric is not None else []:
            if self.metric not in record:
                continue
            earlier = [
                r[self.metric] for r in state.history if self.metric in r and r is not record
            ]
            if not earlier or record[self.metric] < min(earlier):
                self.save(state)
