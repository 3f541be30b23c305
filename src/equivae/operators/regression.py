"""Least squares of latent cells on the patches around them, in one pass over the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["RIDGES", "Kernel", "Padding", "PatchRegression", "Solution", "pad_cells"]

Kernel = tuple[int, ...]
"""Odd numbers of latent cells, one for every axis of the grid: `(k, k)` for images."""

Padding = Literal["replicate", "zeros", "reflect"]
_MODES = {"replicate": "replicate", "zeros": "constant", "reflect": "reflect"}

RIDGES = tuple(10.0**e for e in range(-9, 2))
"""The ridges tried, relative to the mean variance of a patch entry."""


def pad_cells(cells: Tensor, kernel: Kernel, padding: Padding) -> Tensor:
    """Cells `(B, c, *grid)` with half a kernel more of them on every side of every axis."""
    margins = [size // 2 for size in reversed(kernel) for _ in range(2)]
    return F.pad(cells, margins, mode=_MODES[padding]) if any(margins) else cells


@dataclass(frozen=True)
class Solution:
    """A kernel `(c_out, c_in, *kernel)`, a bias `(c_out,)` (both float64), and the ridge behind them."""

    weight: Tensor
    bias: Tensor
    ridge: float


class PatchRegression:
    r"""The normal equations of `Y ≈ W * X + b`, summed over batches in float64.

    With `a` the entries of the patch around a cell of `X` (`c k²` of them for images), and `y` the same
    cell of `Y`, it keeps `Σ a aᵀ`, `Σ a yᵀ`, `Σ a`, `Σ y` and `Σ y²` and nothing else, so that memory
    does not grow with the number of images. The bias is not penalised. Since the patch of a smaller
    kernel is a part of the patch of a larger one, every smaller odd kernel can be solved for as well.

    Products of a batch are formed in its own dtype (at least float32) and summed in float64 on the CPU;
    of float32 latents, errors below about 1e-3 are therefore rounding.

    Args:
        channels: `c`, of inputs and outputs.
        kernel: odd numbers, one for every axis of the grid; `(k, k)` for images.
        padding: how the cells beyond the border are made up, as in the operator that is fitted.
    """

    def __init__(self, channels: int, kernel: Kernel, padding: Padding) -> None:
        self.channels, self.kernel, self.padding = channels, kernel, padding
        entries = channels * math.prod(kernel)
        self.count = 0
        self.gram = torch.zeros(entries, entries, dtype=torch.float64)
        self.cross = torch.zeros(entries, channels, dtype=torch.float64)
        self.patch_sum = torch.zeros(entries, dtype=torch.float64)
        self.target_sum = torch.zeros(channels, dtype=torch.float64)
        self.target_power = torch.zeros(channels, dtype=torch.float64)

    def add(self, inputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch: inputs and targets `(B, c, *grid)`, and the cells that count, bool `(*grid)`."""
        dtype = torch.promote_types(inputs.dtype, torch.float32)
        patches = pad_cells(inputs.to(dtype), self.kernel, self.padding)
        for axis, size in enumerate(self.kernel):
            patches = patches.unfold(2 + axis, size, 1)  # (B, c, *grid, *kernel)
        axes = len(self.kernel)
        cells = range(2, 2 + axes)
        patches = patches.permute(0, *cells, 1, *range(2 + axes, 2 + 2 * axes)).flatten(1, axes)
        a = patches.flatten(2)  # (B, cells, entries)
        y = targets.to(dtype).flatten(2).transpose(1, 2)
        if mask is not None:
            a, y = a[:, mask.flatten()], y[:, mask.flatten()]
        a, y = a.flatten(0, 1), y.flatten(0, 1)
        self.count += len(a)
        self.gram += _kept(a.T @ a)
        self.cross += _kept(a.T @ y)
        self.patch_sum += _kept(a.sum(0))
        self.target_sum += _kept(y.sum(0))
        self.target_power += _kept(y.square().sum(0))
        self.__dict__.pop("_spectra", None)

    def __add__(self, other: PatchRegression) -> PatchRegression:
        """The equations of both sets of cells together."""
        joined = PatchRegression(self.channels, self.kernel, self.padding)
        joined.count = self.count + other.count
        for name in ("gram", "cross", "patch_sum", "target_sum", "target_power"):
            setattr(joined, name, getattr(self, name) + getattr(other, name))
        return joined

    def solve(self, ridge: float, kernel: Kernel | None = None) -> Solution:
        """The kernel and bias for a ridge relative to the mean variance of a patch entry."""
        kernel = kernel or self.kernel
        values, vectors, rotated, mean = self._spectrum(kernel)
        scale = float(values.mean().clamp_min(torch.finfo(torch.float64).tiny))
        # Below float64's own resolution an eigenvalue is rounding, and would be blown up.
        floor = scale * 1e-13
        flat = vectors @ (rotated / (values + ridge * scale).clamp_min(floor)[:, None])
        bias = self.target_sum / self.count - mean @ flat
        weight = flat.T.reshape(self.channels, self.channels, *kernel)
        return Solution(weight.contiguous(), bias, ridge)

    def error(self, solution: Solution) -> float:
        """`‖W * X + b - Y‖ / ‖Y‖` of a solution over the cells added here."""
        return float((self._residuals(solution).sum() / self.target_power.sum()).sqrt())

    def channel_errors(self, solution: Solution) -> list[float]:
        """The same for every channel of `Y`, relative to the norm of `Y` without its mean."""
        power = self.target_power - self.target_sum.square() / self.count
        tiny = torch.finfo(torch.float64).tiny
        return [float(e) for e in (self._residuals(solution) / power.clamp_min(tiny)).sqrt()]

    def _residuals(self, solution: Solution) -> Tensor:
        """Per channel, `Σ (W * X + b - Y)²`."""
        kernel = tuple(solution.weight.shape[2:])
        flat, kept = solution.weight.flatten(1).T, self._entries(kernel)
        gram, cross = self.gram[kept][:, kept], self.cross[kept]
        predicted = self.patch_sum[kept] @ flat
        squares = (
            ((gram @ flat) * flat).sum(0)
            + 2 * predicted * solution.bias
            + self.count * solution.bias.square()
        )
        product = (cross * flat).sum(0) + self.target_sum * solution.bias
        return (squares - 2 * product + self.target_power).clamp_min(0)

    def grid_error(self) -> float:
        """`‖X - Y‖ / ‖Y‖`, the error of moving the grid alone."""
        return self.error(self.grid_move())

    def grid_move(self) -> Solution:
        """The solution that leaves the channels as they are."""
        weight = torch.eye(self.channels, dtype=torch.float64)
        weight = weight.reshape(self.channels, self.channels, *[1] * len(self.kernel))
        return Solution(weight, torch.zeros(self.channels, dtype=torch.float64), 0.0)

    def best(
        self,
        held_out: PatchRegression,
        kernel: Kernel | None = None,
        ridges: Sequence[float] = RIDGES,
    ) -> tuple[Solution, float]:
        """The ridge with the least held-out error, solved for on both sets; and that error."""
        found = [(held_out.error(self.solve(ridge, kernel)), ridge) for ridge in ridges]
        error, ridge = min(found)
        return (self + held_out).solve(ridge, kernel), error

    def _entries(self, kernel: Kernel) -> Tensor:
        """Where the entries of a smaller patch lie in the largest one."""
        places = torch.arange(self.channels * math.prod(self.kernel))
        places = places.view(self.channels, *self.kernel)
        for axis, (largest, size) in enumerate(zip(self.kernel, kernel, strict=True)):
            places = places.narrow(1 + axis, (largest - size) // 2, size)
        return places.flatten()

    @cached_property
    def _spectra(self) -> dict[Kernel, tuple[Tensor, Tensor, Tensor, Tensor]]:
        return {}

    def _spectrum(self, kernel: Kernel) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Eigenvalues and vectors of the patches' covariance, so that a further ridge costs nothing."""
        if kernel not in self._spectra:
            kept = self._entries(kernel)
            mean = self.patch_sum[kept] / self.count
            gram = self.gram[kept][:, kept] / self.count - torch.outer(mean, mean)
            cross = self.cross[kept] / self.count - torch.outer(mean, self.target_sum / self.count)
            values, vectors = torch.linalg.eigh(gram)
            self._spectra[kernel] = (values, vectors, vectors.T @ cross, mean)
        return self._spectra[kernel]


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu").double()
