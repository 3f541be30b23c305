"""The cosine spectrum of images and latents: the basis, and power by radius."""

from __future__ import annotations

import torch
from torch import Tensor

from equivae.losses.precision import in_float32
from equivae.transforms.cosine import dct_basis

__all__ = ["cosine_power", "dct_basis", "radii"]


def cosine_power(grid: Tensor) -> Tensor:
    """The squared DCT coefficients of `(..., h, w)`, of the whole grid, in float32."""
    rows, columns = (dct_basis(n, device=grid.device).float() for n in grid.shape[-2:])
    with in_float32(grid):
        return (rows @ grid.float() @ columns.T).square()


def radii(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """How far every coefficient lies from the constant, as a share of the farthest, `(h, w)`."""
    down = torch.arange(height, dtype=torch.float32, device=device)[:, None]
    across = torch.arange(width, dtype=torch.float32, device=device)
    radius = (down.square() + across.square()).sqrt()
    return radius / radius.max().clamp_min(1.0)
