"""AF-LDM's shift PSNR: the decoder under moves below a cell, by the range of its own pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.evaluation.latent_metrics.base import PerImage, generator_of
from equivae.evaluation.roundtrip import Reconstruction

__all__ = ["SHIFT_PSNR", "fourier_shift", "masked_psnr", "shift_psnr"]


def shift_psnr(vae: Autoencoder, batch: Reconstruction, seeds: list[int]) -> Tensor | None:
    """PSNR in dB of `D(S z)` against `S D(z)` without the first row and column of cells, `(B,)`.

    `S` moves down and right by 1 to `factor - 1` pixels, drawn for every image: the picture by whole pixels,
    the latent around its borders by a phase of its Fourier transform. `None` for a factor of 1, which has
    no moves below a cell.
    """
    if batch.z.ndim != 4:
        return None
    factor = round(batch.output.shape[-2] / batch.z.shape[-2])
    if factor < 2 or min(batch.z.shape[-2:]) < 2:
        return None
    steps = [
        torch.randint(1, factor, (2,), generator=generator_of(seed)).tolist() for seed in seeds
    ]
    moved = [
        fourier_shift(z, down / factor, right / factor)
        for z, (down, right) in zip(batch.z, steps, strict=True)
    ]
    seen = vae.decode(torch.stack(moved)).float()[..., factor:, factor:]
    target = [
        picture.roll((down, right), (-2, -1))
        for picture, (down, right) in zip(batch.output, steps, strict=True)
    ]
    return masked_psnr(seen, torch.stack(target).float()[..., factor:, factor:])


def masked_psnr(a: Tensor, b: Tensor) -> Tensor:
    """PSNR in dB, `(B,)`, whose peak is the range of both pictures together, largest minus smallest value."""
    both = torch.stack([a.flatten(1), b.flatten(1)])
    peak = both.amax((0, 2)) - both.amin((0, 2))
    return 10 * torch.log10(peak.square() / (a - b).square().flatten(1).mean(1))


def fourier_shift(grid: Tensor, down: float, right: float) -> Tensor:
    """A grid `(..., h, w)` moved around its borders by fractions of a cell; exact for what its band holds."""
    height, width = grid.shape[-2:]
    rows = torch.fft.fftfreq(height, device=grid.device)[:, None]
    columns = torch.fft.fftfreq(width, device=grid.device)
    phase = torch.exp(-2j * torch.pi * (rows * down + columns * right))
    moved: Tensor = torch.fft.ifft2(torch.fft.fft2(grid.float()) * phase).real.to(grid)
    return moved


SHIFT_PSNR = PerImage(
    "shift_psnr",
    "shift PSNR of the decoder (AF-LDM)",
    "PSNR of D(S z) against S D(z), S by 1 to factor - 1 pixels along both axes, the first row and column of "
    "cells left out, peak the range of both pictures; mean over the images",
    "Zhou et al. (AF-LDM), 2503.09419: mask_psnr of their code, latents by their Fourier shift",
    "dB",
    True,
    "paper",
    of=shift_psnr,
)
