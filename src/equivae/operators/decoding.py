"""The decoded error: what every fit, analysis and symmetrization is judged by."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from equivae.autoencoder import Autoencoder, measuring
from equivae.units import psnr, require_finite

__all__ = ["decoded_psnr", "squared_error"]


def squared_error(decoded: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, float]:
    """Sum of squares in [0, 1] units inside a mask, and over how many values."""
    difference = (decoded.clamp(-1, 1) - target.clamp(-1, 1)).float().div(2).square()
    if mask is None:
        return difference.sum(), difference.numel()
    inside = mask.to(difference).expand_as(difference)
    return (difference * inside).sum(), float(inside.sum())


def decoded_psnr(
    vae: Autoencoder, batches: Iterable[tuple[Tensor, Tensor, Tensor | None]]
) -> float:
    """PSNR in dB of `D(z)` against images.

    Args:
        vae: the autoencoder that decodes.
        batches: latents in the VAE's dtype, the images that they should decode to, and a mask of pixels or
            `None`.

    Raises `InputError` for decodes that are not finite.
    """
    error = count = 0.0
    with measuring(vae.module):
        for latents, target, mask in batches:
            decoded = vae.decode(latents)
            squares, values = squared_error(decoded, target, mask)
            error += float(squares)
            count += values
    name = type(vae.module).__name__
    require_finite(error, f"the decodes of {name}", "check its weights and its dtype")
    return psnr(error / count)
