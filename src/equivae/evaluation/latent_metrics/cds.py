"""CDS: how fast the likeness of cells falls with their distance."""

from __future__ import annotations

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.evaluation.latent_metrics.base import PerImage
from equivae.evaluation.latent_metrics.cosines import cosines_by_distance
from equivae.evaluation.roundtrip import Reconstruction

__all__ = ["CDS", "correlation_decay"]

FARTHEST = 8


def correlation_decay(z: Tensor, farthest: int = FARTHEST) -> Tensor | None:
    """Minus the slope of the line through the mean cosines of cells at distance 1 to `farthest`, `(B,)`.

    Args:
        z: latents `(B, c, h, w)`; `None` where there are no two distances.
        farthest: in cells, Manhattan.
    """
    sums, counts = cosines_by_distance(z)
    last = min(farthest, len(counts) - 1)
    if last < 2:
        return None
    means = sums[:, 1 : last + 1] / counts[1 : last + 1]
    places = torch.arange(1, last + 1, dtype=means.dtype, device=z.device)
    places = places - places.mean()
    return -((means - means.mean(1, keepdim=True)) @ places) / (places @ places)


def _of(vae: Autoencoder, batch: Reconstruction, seeds: list[int]) -> Tensor | None:
    return correlation_decay(batch.z) if batch.z.ndim == 4 else None


CDS = PerImage(
    "cds",
    "correlation decay slope (CDS)",
    "minus the slope of the mean cosine of cells against their distance 1 to 8 (Manhattan); mean over the "
    "images",
    "Singh et al. (iREPA), 2512.10794, as their code computes it",
    "",
    True,
    "paper",
    of=_of,
)
