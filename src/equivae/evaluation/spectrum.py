"""The block DCT spectrum of latents and of images, by band of frequency."""

from __future__ import annotations

import torch
from torch import Tensor

from equivae.losses.spectra import dct_basis

__all__ = ["block_energy", "spectrum_of"]

BLOCK = 8


def block_energy(grid: Tensor) -> Tensor:
    """Mean energy of every DCT coefficient over the 8x8 blocks of `(..., h, w)`, `(8, 8)` in float64.

    Grids below 8 have blocks of their own size. As in Skorokhodov et al. (arXiv 2502.14831).
    """
    size = min(BLOCK, *grid.shape[-2:])
    blocks = grid.double().unfold(-2, size, size).unfold(-2, size, size)
    basis = dct_basis(size, device=grid.device)
    return (basis @ blocks @ basis.T).square().flatten(0, -3).mean(0)


def spectrum_of(energy: Tensor) -> list[float]:
    """Mean energy by the sum of the two indices, without the constant, as shares of the whole."""
    size = energy.shape[-1]
    index = torch.arange(size, device=energy.device)
    band = index[:, None] + index
    bands = torch.zeros(2 * size - 1, dtype=torch.float64, device=energy.device)
    counts = torch.zeros_like(bands)
    bands.index_add_(0, band.flatten(), energy.flatten())
    counts.index_add_(0, band.flatten(), torch.ones_like(energy).flatten())
    mean = (bands / counts)[1:]
    whole = mean.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return [float(v) for v in mean / whole]
