"""The block DCT spectrum of latents and of images, by band of frequency."""

from __future__ import annotations

import torch
from torch import Tensor

from equivae.losses.spectra import dct_basis

__all__ = ["block_energies", "block_energy", "profile_of", "spectrum_of"]

BLOCK = 8


def block_energies(grid: Tensor) -> Tensor:
    """Energy of every DCT coefficient of all 8x8 blocks of `(..., h, w)`, `(blocks, 8, 8)` in float64.

    Grids below 8 have blocks of their own size. As in Skorokhodov et al. (arXiv 2502.14831).
    """
    size = min(BLOCK, *grid.shape[-2:])
    blocks = grid.double().unfold(-2, size, size).unfold(-2, size, size)
    basis = dct_basis(size, device=grid.device)
    return (basis @ blocks @ basis.T).square().flatten(0, -3)


def block_energy(grid: Tensor) -> Tensor:
    """The mean of `block_energies`, `(8, 8)`."""
    return block_energies(grid).mean(0)


def profile_of(energy: Tensor) -> list[float]:
    """Amplitudes of all coefficients in the zigzag order of JPEG, relative to the constant's.

    What Skorokhodov et al. plot: from the lowest to the highest frequency, with the constant first.
    """
    size = energy.shape[-1]
    places = [(i, j) for i in range(size) for j in range(size)]
    # Diagonal by diagonal, in turns upwards and downwards.
    places.sort(key=lambda at: (sum(at), at[0] if sum(at) % 2 else at[1]))
    amplitudes = torch.stack([energy[i, j] for i, j in places]).sqrt()
    first = amplitudes[0].clamp_min(torch.finfo(torch.float64).tiny)
    return [float(value) for value in amplitudes / first]


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
