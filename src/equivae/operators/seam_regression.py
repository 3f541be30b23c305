"""Least squares of what the plain latent op misses beside a seam, told from the cells around."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from equivae.operators.modules import Kernel
from equivae.operators.moments import RIDGES, LinearMap, Moments
from equivae.operators.regression import Regression
from equivae.operators.seams import SeamOperator, Window
from equivae.transforms import Transform
from equivae.transforms.cells import Crop, pair
from equivae.transforms.paste import Paste

__all__ = ["SeamRegression", "seam_operator"]

_LEAST_RIDGE = 1e-4  # there are few cells beside a seam


class SeamRegression(Regression[LinearMap]):
    """The equations of a `SeamOperator`: those of the cells beside the seam.

    A large ridge leads to no correction, which is the plain latent op.

    Args:
        template: an operator with the window and the kernel to solve for.
    """

    moves_grid = True

    def __init__(self, template: SeamOperator) -> None:
        self.template = template
        self.moments = Moments(template.entries, template.channels)
        self._elsewhere = self._power = 0.0

    @property
    def count(self) -> int:  # type: ignore[override]
        return self.moments.count

    @property
    def entries(self) -> int:
        return self.template.entries

    def like(self) -> SeamRegression:
        """Empty equations of the same entries."""
        return SeamRegression(self.template)

    def add(self, inputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> None:
        cells = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        seam = self.template.seam(cells)
        goal = targets.to(cells.dtype).flatten(2)
        missing = goal - seam.plain.flatten(2)
        counted = torch.ones(goal.shape[-1], dtype=torch.bool, device=goal.device)
        if mask is not None:
            counted = mask.flatten().to(goal.device)
        index = seam.index.to(goal.device)
        chosen = counted[index]
        rows, wanted = seam.rows[:, chosen], missing[..., index[chosen]].transpose(1, 2)
        self.moments.add(rows.flatten(0, 1), wanted.flatten(0, 1))
        self._power += float(goal[..., counted].double().square().sum())
        counted[index] = False
        self._elsewhere += float(missing[..., counted].double().square().sum())

    def __add__(self, other: SeamRegression) -> SeamRegression:
        joined = self.like()
        joined.moments = self.moments + other.moments
        joined._elsewhere = self._elsewhere + other._elsewhere
        joined._power = self._power + other._power
        return joined

    def best(
        self,
        held_out: SeamRegression,
        kernel: Kernel | None = None,
        ridges: Sequence[float] = RIDGES,
    ) -> tuple[LinearMap, float]:
        if len(ridges) > 1:
            ridges = [ridge for ridge in ridges if ridge >= _LEAST_RIDGE]
        return super().best(held_out, kernel, ridges)

    def solve(self, ridge: float, kernel: Kernel | None = None) -> LinearMap:
        return self.moments.solve(ridge)

    def error(self, solution: LinearMap) -> float:
        beside = float(self.moments.residuals(solution).sum()) if self.count else 0.0
        return math.sqrt((beside + self._elsewhere) / self._power)

    def operator(self, solution: LinearMap) -> SeamOperator:
        made = SeamOperator(self.template.channels, self.template.kernel_size, self.template.window)
        made.weight.copy_(solution.weight.T)
        made.bias.copy_(solution.bias)
        return made


def seam_operator(
    transform: Transform, channels: int, kernel_size: int, most_entries: int
) -> SeamOperator | None:
    """An unfitted operator for a crop or a paste; `None` for others, and where it would see no seam.

    Args:
        transform: the transform.
        channels: of the latents.
        kernel_size: cells along a side that it looks at; fewer where that would be more than `most_entries`.
        most_entries: that can be solved for.
    """
    if not isinstance(transform, (Crop, Paste)) or kernel_size == 1:
        return None
    window = Window(
        pair(transform.size, "size"), (transform.y, transform.x), isinstance(transform, Paste)
    )
    found = SeamOperator(channels, kernel_size, window)
    while found.entries > most_entries and found.kernel_size > 3:
        found = SeamOperator(channels, found.kernel_size - 2, window)
    return found
