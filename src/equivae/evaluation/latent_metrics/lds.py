"""LDS: how much more alike neighbouring cells are than distant ones."""

from __future__ import annotations

from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.evaluation.latent_metrics.base import PerImage
from equivae.evaluation.latent_metrics.cosines import cosines_by_distance
from equivae.evaluation.roundtrip import Reconstruction

__all__ = ["LDS", "local_vs_distant"]

FAR = 6


def local_vs_distant(z: Tensor, far: int = FAR) -> Tensor | None:
    """Mean cosine of cells that touch minus that of cells `far` or more apart (Manhattan), `(B,)`.

    Args:
        z: latents `(B, c, h, w)`; `None` where no two cells lie so far apart.
        far: in cells.
    """
    sums, counts = cosines_by_distance(z)
    if len(counts) <= max(far, 1):
        return None
    near, distant = sums[:, 1] / counts[1], sums[:, far:].sum(1) / counts[far:].sum()
    return near - distant


def _of(vae: Autoencoder, batch: Reconstruction, seeds: list[int]) -> Tensor | None:
    return local_vs_distant(batch.z) if batch.z.ndim == 4 else None


LDS = PerImage(
    "lds",
    "local against distant similarity (LDS)",
    "mean cosine of cells that touch minus that of cells 6 or more apart (Manhattan); mean over the images",
    "Singh et al. (iREPA), 2512.10794, as their code computes it",
    "",
    True,
    "paper",
    of=_of,
    within=(-2.0, 2.0),
)
