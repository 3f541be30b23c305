"""Least squares of latent cells on the cells around them, in one pass over the data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from equivae.operators.modules import ConvOperator, Kernel, LatentOperator, Padding, pad_cells
from equivae.operators.moments import RIDGES, LinearMap, Moments
from equivae.operators.phases import PhaseOperator

__all__ = [
    "PatchRegression",
    "PhaseRegression",
    "Regression",
    "Solution",
    "at_border",
    "learns_border",
]

Found = TypeVar("Found")
Own = TypeVar("Own", bound="Regression")  # type: ignore[type-arg]


@dataclass(frozen=True)
class Solution:
    """A map, and the kernel that it was solved for."""

    map: LinearMap
    kernel: Kernel
    weight: Tensor
    bias: Tensor
    ridge: float


class Regression(ABC, Generic[Found]):
    """Equations that are summed over batches and then solved for any ridge."""

    count: int
    moves_grid: bool = False
    """Whether the operator takes the untouched latent to the new grid."""
    tells_error: bool = True
    """Whether `error` is that of the operator, and not of the equations alone."""

    @abstractmethod
    def add(self, inputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch: inputs and targets `(B, c, *grid)`; the target cells that count, bool `(*grid)`."""

    @abstractmethod
    def __add__(self: Own, other: Own) -> Own:
        """The equations of both sets of cells together."""

    @abstractmethod
    def solve(self, ridge: float, kernel: Kernel | None = None) -> Found:
        """The solution for a ridge, relative to the mean variance of an entry, and a kernel."""

    @abstractmethod
    def error(self, solution: Found) -> float:
        """`‖ρ X - Y‖ / ‖Y‖` of a solution over the cells added here."""

    @abstractmethod
    def operator(self, solution: Found) -> LatentOperator:
        """A solution as a module, in float32."""

    @property
    @abstractmethod
    def entries(self) -> int:
        """Unknowns of one output channel, its bias aside."""

    @property
    def fewest(self) -> int:
        """Cells that the unknowns are told from; of several sets of unknowns, those of the poorest."""
        return self.count

    def best(
        self: Own,
        held_out: Own,
        kernel: Kernel | None = None,
        ridges: Sequence[float] = RIDGES,
    ) -> tuple[Found, float]:
        """The solution on these cells whose ridge has the least error on others; and that error."""
        found = []
        for ridge in ridges:
            solution = self.solve(ridge, kernel)
            found.append((held_out.error(solution), ridge, solution))
        error, _, solution = min(found, key=lambda one: one[:2])
        return solution, error


class PatchRegression(Regression[Solution]):
    r"""The equations of `Y ≈ W * X + b`, whose solution is a `ConvOperator`.

    Since the patch of a smaller kernel is a part of the patch of a larger one, every smaller odd kernel
    can be solved for as well.

    Args:
        channels: `c`, of inputs and outputs.
        kernel: odd numbers, one for every axis of the grid; `(k, k)` for images.
        padding: how the cells beyond the border are made up, as in the operator that is fitted.
        border: whether a channel of ones lies beside the zero-padded latent.
        magnitude: side of the kernel over `|z|`; 0 for none.
        rank: how many principal components of the channels the neighbours of a cell are reduced to, for
            latents so wide that all of them are too many entries; the cell itself keeps its channels. They
            are those of the first batch. `None` keeps all.
    """

    def __init__(
        self,
        channels: int,
        kernel: Kernel,
        padding: Padding,
        *,
        border: bool = False,
        magnitude: int = 0,
        rank: int | None = None,
    ) -> None:
        self.channels, self.kernel, self.padding = channels, kernel, padding
        self.border = border and padding == "zeros" and max(kernel) > 1
        self.magnitude, self.rank = magnitude, rank
        self.basis: Tensor | None = None
        self.moments = Moments(self.entries, channels)

    @property
    def count(self) -> int:  # type: ignore[override]
        return self.moments.count

    @property
    def entries(self) -> int:
        return sum(wide * math.prod(kernel) for wide, kernel in self._blocks)

    @property
    def _blocks(self) -> list[tuple[int, Kernel]]:
        """Channels and kernel of every group of entries."""
        one = (1,) * len(self.kernel)
        blocks = [(self.channels, self.kernel)]
        if self.rank is not None:
            blocks = [(self.channels, one), (self.rank, self.kernel)]
        if self.border:
            blocks.append((1, self.kernel))
        if self.magnitude:
            blocks.append((self.channels, tuple(min(k, self.magnitude) for k in self.kernel)))
        return blocks

    def choose_basis(self, inputs: Tensor) -> None:
        """Take the principal components of these latents, if there is a rank and none were taken yet."""
        if self.rank is None or self.basis is not None:
            return
        rows = inputs.transpose(0, 1).flatten(1).double().cpu()
        rows = rows - rows.mean(1, keepdim=True)
        vectors = torch.linalg.eigh(rows @ rows.T).eigenvectors
        self.basis = vectors[:, -self.rank :].T.contiguous()

    def add(self, inputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> None:
        cells = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        planes = [cells]
        if self.rank is not None:
            self.choose_basis(cells)
            assert self.basis is not None
            planes.append(torch.einsum("rc,bc...->br...", self.basis.to(cells), cells))
        if self.border:
            planes.append(torch.ones_like(cells[:, :1]))
        if self.magnitude:
            planes.append(cells.abs())
        parts = [
            patches_of(plane, kernel, self.padding)
            for plane, (_, kernel) in zip(planes, self._blocks, strict=True)
        ]
        a = torch.cat(parts, -1)
        y = targets.to(cells.dtype).flatten(2).transpose(1, 2)
        if mask is not None:
            a, y = a[:, mask.flatten()], y[:, mask.flatten()]
        self.moments.add(a.flatten(0, 1), y.flatten(0, 1))

    def __add__(self, other: PatchRegression) -> PatchRegression:
        joined = self.like()
        joined.basis, joined.moments = self.basis, self.moments + other.moments
        return joined

    def like(self) -> PatchRegression:
        """Empty equations of the same entries."""
        made = PatchRegression(
            self.channels,
            self.kernel,
            self.padding,
            border=self.border,
            magnitude=self.magnitude,
            rank=self.rank,
        )
        made.basis = self.basis
        return made

    def solve(self, ridge: float, kernel: Kernel | None = None) -> Solution:
        kernel = kernel or self.kernel
        found = self.moments.solve(ridge, self._places(kernel))
        return self._solution(found, kernel)

    def error(self, solution: Solution) -> float:
        residuals = self.moments.residuals(solution.map, self._places(solution.kernel))
        return float((residuals.sum() / self.moments.power.sum()).sqrt())

    def channel_errors(self, solution: Solution) -> list[float]:
        """The same for every channel of `Y`, relative to the norm of `Y` without its mean."""
        residuals = self.moments.residuals(solution.map, self._places(solution.kernel))
        tiny = torch.finfo(torch.float64).tiny
        return [float(e) for e in (residuals / self.moments.variance.clamp_min(tiny)).sqrt()]

    def grid_error(self) -> float:
        """`‖X - Y‖ / ‖Y‖`, the error of moving the grid alone."""
        return self.error(self.grid_move())

    def grid_move(self) -> Solution:
        """The solution that leaves the channels as they are."""
        kernel = (1,) * len(self.kernel)
        weight = torch.zeros(len(self._places(kernel)), self.channels, dtype=torch.float64)
        weight[: self.channels] = torch.eye(self.channels)
        bias = torch.zeros(self.channels, dtype=torch.float64)
        return self._solution(LinearMap(weight, bias, 0.0), kernel)

    def operator(self, solution: Solution) -> ConvOperator:
        made = ConvOperator(
            self.channels,
            solution.kernel,
            self.padding,
            border=self.border and max(solution.kernel) > 1,
            magnitude=self.magnitude,
        )
        made.weight.copy_(solution.weight)
        made.bias.copy_(solution.bias)
        tail = self._parts(solution.map.weight, solution.kernel)[1 if self.rank is None else 2 :]
        if self.border:
            border = tail.pop(0)
            if made.border_weight is None:  # one cell's border is everywhere: it adds to the bias
                made.bias.add_(border.flatten().float())
            else:
                made.border_weight.copy_(border)
        if made.magnitude_weight is not None:
            made.magnitude_weight.copy_(tail.pop(0))
        return made

    def _solution(self, found: LinearMap, kernel: Kernel) -> Solution:
        weight = self._parts(found.weight, kernel)[0]
        if self.rank is not None:
            assert self.basis is not None
            near = self._parts(found.weight, kernel)[1]
            whole = torch.einsum("or...,rc->oc...", near, self.basis).contiguous()
            whole.flatten(2)[..., math.prod(kernel) // 2] += weight.flatten(1)
            weight = whole
        return Solution(found, kernel, weight.contiguous(), found.bias, found.ridge)

    def _parts(self, weight: Tensor, kernel: Kernel) -> list[Tensor]:
        """A flat map as one kernel for every block."""
        parts, start = [], 0
        for wide, own in self._blocks:
            small = tuple(min(k, o) for k, o in zip(kernel, own, strict=True))
            end = start + wide * math.prod(small)
            parts.append(weight[start:end].T.reshape(self.channels, wide, *small))
            start = end
        return parts

    def _places(self, kernel: Kernel) -> Tensor:
        """Where the entries of a smaller patch lie in the largest one."""
        found, start = [], 0
        for wide, own in self._blocks:
            count = wide * math.prod(own)
            places = torch.arange(start, start + count).view(wide, *own)
            for axis, (largest, size) in enumerate(zip(own, kernel, strict=True)):
                size = min(size, largest)
                places = places.narrow(1 + axis, (largest - size) // 2, size)
            found.append(places.flatten())
            start += count
        return torch.cat(found)


class PhaseRegression(Regression[list[LinearMap]]):
    """The equations of a `PhaseOperator`: one set for every phase.

    Args:
        template: an operator with the windows and phases to solve for.
    """

    moves_grid = True

    def __init__(self, template: PhaseOperator) -> None:
        self.template = template
        self.moments = [Moments(self.entries, template.channels) for _ in template.phases]

    @property
    def count(self) -> int:  # type: ignore[override]
        return sum(moments.count for moments in self.moments)

    @property
    def tells_error(self) -> bool:  # type: ignore[override]
        return not self.template.blended

    @property
    def entries(self) -> int:
        return self.template.planes * math.prod(self.template.kernel)

    @property
    def fewest(self) -> int:
        return min((moments.count for moments in self.moments if moments.count), default=0)

    def like(self) -> PhaseRegression:
        """Empty equations of the same entries."""
        return PhaseRegression(self.template)

    def add(self, inputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> None:
        cells = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        windows, phase, _ = self.template.windows(cells)
        goals = targets.to(cells.dtype).flatten(2).transpose(1, 2)
        for p, moments in enumerate(self.moments):
            chosen = phase == p if mask is None else (phase == p) & mask.flatten().to(phase.device)
            moments.add(windows[:, chosen].flatten(0, 1), goals[:, chosen].flatten(0, 1))

    def __add__(self, other: PhaseRegression) -> PhaseRegression:
        joined = self.like()
        joined.moments = [a + b for a, b in zip(self.moments, other.moments, strict=True)]
        return joined

    def solve(self, ridge: float, kernel: Kernel | None = None) -> list[LinearMap]:
        # A phase that no cell had, all of them outside the mask, takes what suits all cells.
        pooled = (
            None if all(m.count for m in self.moments) else sum(self.moments[1:], self.moments[0])
        )
        return [(m if m.count or pooled is None else pooled).solve(ridge) for m in self.moments]

    def error(self, solution: list[LinearMap]) -> float:
        error = power = 0.0
        for moments, found in zip(self.moments, solution, strict=True):
            if moments.count:
                error += float(moments.residuals(found).sum())
                power += float(moments.power.sum())
        return math.sqrt(error / power)

    def operator(self, solution: list[LinearMap]) -> PhaseOperator:
        old = self.template
        made = PhaseOperator(
            old.channels,
            old.kernel,
            old.geometry,
            old.phases,
            old.spread,
            inputs=old.inputs,
            border=old.border,
            magnitude=old.magnitude,
            blended=old.blended,
        )
        for p, found in enumerate(solution):
            made.weight[p] = found.weight.T.float()
            made.bias[p] = found.bias.float()
        return made


def patches_of(cells: Tensor, kernel: Kernel, padding: Padding) -> Tensor:
    """The patches around all cells `(B, c, *grid)`, as `(B, cells, c * prod(kernel))`."""
    patches = pad_cells(cells, kernel, padding)
    for axis, size in enumerate(kernel):
        patches = patches.unfold(2 + axis, size, 1)  # (B, c, *grid, *kernel)
    axes = len(kernel)
    patches = patches.permute(0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes))
    return patches.flatten(1, axes).flatten(2)


def at_border(cells: Tensor, kernel: Kernel) -> Tensor:
    """Which patches of the grid of `(B, c, *grid)` reach beyond its border, bool `(*grid)`."""
    inside = torch.ones(1, 1, *cells.shape[2:])
    return (patches_of(inside, kernel, "zeros") == 0).any(-1).view(cells.shape[2:])


def learns_border(at_border: Tensor, mask: Tensor | None) -> bool:
    """Whether all cells at the border lie inside the mask, so that a fit can learn from them what it is.

    Weights that only cells outside the mask use, or a few inside, may get any value, and layers of the
    decoder that normalise over the image carry what comes out of them inside.
    """
    return mask is None or not bool((at_border & ~mask.to(at_border.device)).any())
