"""Scaling that changes the size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivae.transforms.cells import Pair, pair, whole_cells
from equivae.transforms.placing import CellTransform
from equivae.transforms.resampled.parameters import check_positive
from equivae.transforms.spelling import spell
from equivae.transforms.warp import Interpolation, check_option, is_one

__all__ = ["Scale"]


@dataclass(frozen=True)
class Axis:
    """One axis that is scaled: its latent cells before and after, and the pixels of a cell."""

    cells: int
    new_cells: int
    cell: int

    @property
    def step(self) -> float:
        """How far apart neighbours of the result lie in the source."""
        return self.cells / self.new_cells

    def copied(self) -> Tensor:
        """Which pixel of the source each of the result is when cells are copied; some lie outside."""
        centres = (torch.arange(self.new_cells, dtype=torch.float64) + 0.5) * self.step
        # On an edge the next cell counts, whatever the rounding of the float says.
        cells = (centres + 1e-6).floor().long()
        off = cells + 0.5 - centres
        # Copies of one cell make their mean step: they cannot all lie where its pixels do.
        off = (torch.bincount(cells, off) / torch.bincount(cells).clamp_min(1))[cells]
        pixels = torch.arange(self.new_cells * self.cell, dtype=torch.float64) + 0.5
        places = pixels * self.step + off.repeat_interleave(self.cell) * self.cell
        return (places + 1e-6).floor().long()

    def is_inside(self, places: Tensor) -> Tensor:
        return (places >= 0) & (places < self.cells * self.cell)

    def margin(self, reach: float) -> tuple[int, int]:
        """How many pixels at least `reach` wide to put around, and what becomes of them: a whole number."""
        before, after = self.cells * self.cell, self.new_cells * self.cell
        shared = math.gcd(before, after)
        times = math.ceil(reach * shared / before)
        return times * before // shared, times * after // shared


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Scale(CellTransform):
    """Scaling that changes the size, as in EQ-VAE and the scale-equivariance paper.

    The latent gets `factor` times as large, rounded to whole cells, and the image just as many cells.
    It has no inverse: what scaling down discards does not come back. The mask leaves out the cells whose
    kernel reaches over the edge, where both ops repeat what lies there, each on its own grid.

    Args:
        factor: how much larger, such as `0.5`, or a pair (y, x).
        interpolation: `"bilinear"`, `"bicubic"` or `"nearest"`, which copies latent cells: the pixel op
            then puts the pixels of a cell where the latent op puts the cell, or the middle of its copies.
        antialias: filter before scaling down (not with `"nearest"`).
        cell: pixels per latent cell, the VAE's factor, which the pixel op needs; see `Transform.at_factor`.

    ```python
    import torch

    import equivae

    t = equivae.get_transform("scale", factor=11 / 32, cell=8)
    assert t.pixel(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 88, 88)
    assert t.latent(torch.zeros(1, 4, 32, 32)).shape == (1, 4, 11, 11)
    ```
    """

    factor: Pair = 0.5
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    exact = False
    layouts = ("image", "video")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("interpolation", self.interpolation, Interpolation)
        check_positive("factor", *pair(self.factor, "factor"))

    @property
    def name(self) -> str:  # type: ignore[override]
        shown: dict[str, object] = {"factor": self.factor}
        if self.interpolation != "bilinear":
            shown["interpolation"] = self.interpolation
        if not self.antialias:
            shown["antialias"] = False
        return spell("scale", **shown)

    def pixel(self, x: Tensor) -> Tensor:
        return self._resize(x, self._axes(x, self.pixels_per_cell))

    def latent(self, z: Tensor) -> Tensor:
        return self._resize(z, self._axes(z, 1))

    def mask(self, x: Tensor) -> Tensor | None:
        rows, columns = (self._inside(axis) for axis in self._axes(x, self.pixels_per_cell))
        if rows.all() and columns.all():
            return None
        return (rows[:, None] & columns).to(x.device)

    def carry_mask(self, x: Tensor, valid: Tensor) -> Tensor:
        value = valid.float().reshape(-1, 1, *valid.shape[-2:])
        axes = self._axes(value, self.pixels_per_cell)
        whole = is_one(F.adaptive_avg_pool2d(value, (axes[0].cells, axes[1].cells))).float()
        fine = is_one(self._surrounded(value, axes))
        coarse = is_one(self._surrounded(whole, [replace(axis, cell=1) for axis in axes])).float()
        return fine & F.interpolate(coarse, fine.shape[-2:], mode="nearest").bool()

    def _axes(self, tensor: Tensor, cell: int) -> list[Axis]:
        sides = zip(tensor.shape[-2:], pair(self.factor, "factor"), strict=True)
        counts = [(whole_cells(side, cell), by) for side, by in sides]
        return [Axis(count, max(1, int(count * by + 0.5)), cell) for count, by in counts]

    def _resize(self, tensor: Tensor, axes: Sequence[Axis]) -> Tensor:
        planes = tensor.reshape(-1, 1, *tensor.shape[-2:])
        if planes.dtype in (torch.float16, torch.bfloat16):
            planes = planes.float()
        if self.interpolation == "nearest":
            for dim, axis in zip((-2, -1), axes, strict=True):
                last = axis.cells * axis.cell - 1
                planes = planes.index_select(dim, axis.copied().clamp(0, last).to(planes.device))
        else:
            planes = self._interpolated(planes, [axis.new_cells * axis.cell for axis in axes])
        return planes.reshape(*tensor.shape[:-2], *planes.shape[-2:]).to(tensor.dtype)

    def _interpolated(self, planes: Tensor, size: Sequence[int]) -> Tensor:
        # torch 2.13's anti-aliased interpolate repeats the first row when the result is one pixel wide.
        narrow = size[1] == 1
        resized = F.interpolate(
            planes.mT if narrow else planes,
            list(size[::-1] if narrow else size),
            mode=self.interpolation,
            align_corners=False,
            antialias=self.antialias,
        )
        return resized.mT if narrow else resized

    def _surrounded(self, value: Tensor, axes: Sequence[Axis]) -> Tensor:
        """The scaled value as if zeros lay around it."""
        if self.interpolation == "nearest":
            scaled = self._resize(value, axes)
            rows, columns = (axis.is_inside(axis.copied()) for axis in axes)
            return scaled * (rows[:, None] & columns).to(scaled)
        (top, above), (left, beside) = (axis.margin(self._reach(axis)) for axis in axes)
        padded = F.pad(value, (left, left, top, top))
        height, width = (axis.new_cells * axis.cell for axis in axes)
        scaled = self._interpolated(padded, (height + 2 * above, width + 2 * beside))
        return scaled[..., above : above + height, beside : beside + width]

    def _reach(self, axis: Axis) -> float:
        """How far the kernel reaches, in pixels of the source."""
        radius = 2.0 if self.interpolation == "bicubic" else 1.0
        return radius * (max(1.0, axis.step) if self.antialias else 1.0) + 1.0

    def _inside(self, axis: Axis) -> Tensor:
        """Where along an axis the kernel stays inside, for pixels and for cells: `(new side,)`."""
        across = Axis(2, 2, 1)  # the other axis, on which nothing happens
        ones = torch.ones(1, 1, axis.cells * axis.cell, 2, dtype=torch.float64)
        fine = is_one(self._surrounded(ones, [axis, across]))[0, 0, :, 0]
        axis = replace(axis, cell=1)
        coarse = is_one(self._surrounded(ones[..., : axis.cells, :], [axis, across]))[0, 0, :, 0]
        return fine & coarse.repeat_interleave(len(fine) // len(coarse))

    def _does(self) -> Mapping[str, Any]:
        return {**super()._does(), "factor": pair(self.factor, "factor")}
