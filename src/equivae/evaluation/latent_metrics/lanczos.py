"""Grids moved by fractions of a cell with Lanczos' filter, as StyleGAN3's EQ-T moves images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["lanczos_shift"]

LOBES = 3


def lanczos_shift(grid: Tensor, down: float, right: float) -> tuple[Tensor, Tensor]:
    """A grid `(..., h, w)` moved down and right, in cells, and where it is known, `(h, w)`.

    Zero beyond the border. Known are the cells whose filter lies inside the grid (Karras et al., 2021,
    appendix E.2).
    """
    rows, known_rows = _matrix(grid, grid.shape[-2], down)
    columns, known_columns = _matrix(grid, grid.shape[-1], right)
    return rows @ grid @ columns.T, known_rows[:, None] & known_columns


def _matrix(like: Tensor, side: int, shift: float) -> tuple[Tensor, Tensor]:
    place = torch.arange(side, dtype=torch.float64)
    weights = _kernel(place[:, None] - place - shift)
    taps = torch.arange(-LOBES, LOBES + 2, dtype=torch.float64) - (shift - math.floor(shift))
    weights = weights / _kernel(taps).sum()
    low, high = math.floor(shift) + LOBES, math.floor(shift) + side - LOBES
    known = (place >= low) & (place <= high)
    return weights.to(like), known.to(like.device)


def _kernel(distance: Tensor) -> Tensor:
    window = torch.where(distance.abs() < LOBES, torch.sinc(distance / LOBES), 0.0)
    return torch.sinc(distance) * window
