"""LCR's window correlation: how alike the cells of a 2x2 window are."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.evaluation.latent_metrics.base import PerImage
from equivae.evaluation.roundtrip import Reconstruction

__all__ = ["WINDOW_CORRELATION", "window_correlation"]


def window_correlation(z: Tensor) -> Tensor | None:
    """Mean Pearson correlation over the channels of the cells of each 2x2 window, `(B,)`.

    Args:
        z: latents `(B, c, h, w)`, of which an odd last row or column counts in no window; `None` for a
            single channel or row, which has no correlation.
    """
    height, width = (side // 2 * 2 for side in z.shape[-2:])
    if z.shape[1] < 2 or not height or not width:
        return None
    cells = z[..., :height, :width].double()
    cells = cells - cells.mean(1, keepdim=True)
    cells = cells / (cells.norm(dim=1, keepdim=True) + 1e-8)
    corners = [cells[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    pairs = [(a * b).sum(1).flatten(1).mean(1) for a, b in combinations(corners, 2)]
    return torch.stack(pairs).mean(0)


def _of(vae: Autoencoder, batch: Reconstruction, seeds: list[int]) -> Tensor | None:
    return window_correlation(batch.z) if batch.z.ndim == 4 else None


WINDOW_CORRELATION = PerImage(
    "window_correlation",
    "window correlation (LCR)",
    "mean Pearson correlation, over the channels, of the pairs of cells in 2x2 windows; mean over the images",
    "SSVAE, 2512.05394, as their code computes it",
    "",
    True,
    "paper",
    of=_of,
    within=(-1.0, 1.0),
)
