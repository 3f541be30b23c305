"""How long the layers at latent resolution learn: a rate that falls to zero, and when their loss rests."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["Pace", "affordable", "decline"]

_WINDOW = 100  # steps


def affordable(steps: int, share: float, following: int, cost: float) -> int:
    """So many of `steps` that they cost at most a share of those that follow, one of which costs 1."""
    return min(steps, int(share * following / cost)) if cost else steps


class Pace:
    """The share of the peak learning rate at every step: a warm-up, then a cosine to zero.

    Told to end early, it falls from where it stands to zero in a tenth of the steps so far: a loss that rests
    at a high rate still falls with the rate.

    Args:
        steps: planned.
        warmup: of them.
    """

    def __init__(self, steps: int, warmup: int) -> None:
        self.last, self.steps, self.warmup = steps, steps, warmup
        self._ends = -1

    def __call__(self, step: int) -> float:
        if 0 <= self._ends < step:
            return max(0.0, self._usual(self._ends) * (self.last - step) / (self.last - self._ends))
        return self._usual(step)

    def _usual(self, step: int) -> float:
        if step < self.warmup:
            return step / max(1, self.warmup)
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * share)))

    def end(self, step: int) -> None:
        """End soon after this step, unless that is no sooner than planned."""
        last = step + max(1, step // 10)
        if self._ends < 0 and last < self.last:
            self.last, self._ends = last, step


def decline(losses: Sequence[float], batches: Sequence[int]) -> float | None:
    """By which part the loss fell in 100 steps, of late; negative where it rose, `None` after too few steps.

    Each loss is compared with that of the same batch before: batches differ by more than a loss that rests.

    Args:
        losses: of every step.
        batches: which batch each step had.

    ```python
    from equivae.training.pace import decline

    falling = [0.99**step for step in range(300)]
    assert abs(decline(falling, [step % 3 for step in range(300)]) - (1 - 0.99**100)) < 1e-6
    ```
    """
    if len(losses) < 2 * _WINDOW:
        return None
    seen: dict[int, int] = {}
    change, steps = 0.0, 0
    for step, batch in enumerate(batches[: len(losses)]):
        before = seen.get(batch)
        if step >= len(losses) - _WINDOW and before is not None and losses[before] > 0:
            change += math.log(max(losses[step], 1e-30) / losses[before])
            steps += step - before
        seen[batch] = step
    return 1.0 - math.exp(_WINDOW * change / steps) if steps else None
