"""Losses and weights under watch, without waiting for the device at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivae.errors import NonFiniteLossError
from equivae.processes import gathered
from equivae.training.checkpoints import list_checkpoints

__all__ = ["Watch", "check_weights", "diverged"]

_SHOWN = 8  # names in a message


class Watch:
    """Mean losses between two records, and the first bad step, kept on the device until asked for.

    Args:
        device: of the losses.
        names: of the images of a step, for the message about it.
        skips: whether steps with infinite numbers are left out by themselves, as under fp16: such losses
            count for nothing then.
    """

    def __init__(
        self,
        device: torch.device,
        names: Callable[[int], list[str]] = lambda step: [],
        *,
        skips: bool = False,
    ) -> None:
        self.names, self.skips = names, skips
        self.first_bad = torch.full((), torch.inf, device=device)
        self.first_bad_gradient = self.first_bad.clone()
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Any] = {}

    def see(self, loss: Tensor, terms: Mapping[str, Tensor], step: int) -> None:
        count: Any = 1
        if self.skips:
            finite = torch.isfinite(torch.stack([loss, *terms.values()])).all()
            loss = torch.where(finite, loss, 0)
            terms = {name: torch.where(finite, value, 0) for name, value in terms.items()}
            count = finite.int()
        else:
            self.first_bad = _earlier(self.first_bad, loss, step)
        for name, value in {"loss": loss, **terms}.items():
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + count

    def see_gradient(self, norm: Tensor, step: int) -> None:
        if not self.skips:
            self.first_bad_gradient = _earlier(self.first_bad_gradient, norm, step)

    def record(self, output_dir: Path) -> dict[str, float]:
        """The means over all processes since the last record; `NonFiniteLossError` for a bad loss."""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for part in self.pending(output_dir):
            for name, total in part["sums"].items():
                sums[name] = sums.get(name, 0.0) + total
                counts[name] = counts.get(name, 0) + part["counts"][name]
        self.sums, self.counts = {}, {}
        return {name: total / max(counts[name], 1) for name, total in sums.items()}

    def pending(self, output_dir: Path) -> list[dict[str, Any]]:
        """Sums and counts since the last record, of every process."""
        bad = [float(self.first_bad), float(self.first_bad_gradient)]
        own = {
            "bad": bad,
            "names": self.names(int(min(bad))) if min(bad) < float("inf") else [],
            "sums": {name: float(total) for name, total in self.sums.items()},
            "counts": {name: int(count) for name, count in self.counts.items()},
        }
        found = gathered(own)
        loss, gradient = (min(part["bad"][i] for part in found) for i in (0, 1))
        if (first := min(loss, gradient)) < float("inf"):
            names = [n for part in found if min(part["bad"]) == first for n in part["names"]]
            what = "the loss" if loss <= gradient else "the gradient"
            raise diverged(what, int(first), output_dir, names)
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
        raise diverged("a weight", step, output_dir, [])


def _earlier(first: Tensor, value: Tensor, step: int) -> Tensor:
    """The first bad step, which is this one where the value is not a number and none was bad before."""
    bad = torch.where(torch.isfinite(value), torch.inf, float(step))
    return torch.minimum(first, bad.to(first))


def diverged(what: str, step: int, output_dir: Path, names: Sequence[str]) -> NonFiniteLossError:
    """The error that says what became no number when, on which images, and what is left."""
    kept = list_checkpoints(output_dir)
    where = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was due yet"
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    images = f" Its images: {shown}." if names else ""
    return NonFiniteLossError(
        f"{what} became NaN or infinite at step {step}; {where}.{images} Lower the learning rate, or use "
        "mixed_precision='bf16' or 'no' instead of 'fp16'.",
        step,
    )
