"""The cosines of cells by their distance on the grid, from which LDS and CDS follow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["cosines_by_distance"]


def cosines_by_distance(z: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the cosines of all ordered pairs of cells by Manhattan distance, and how many pairs there are.

    Args:
        z: latents `(B, c, h, w)`.

    Returns sums `(B, h + w - 1)` and counts `(h + w - 1,)` in float64. By autocorrelation: the sum over
    pairs at an offset is that of the normalised channels' products, for all offsets at once.
    """
    height, width = z.shape[-2:]
    unit = F.normalize(z.double(), dim=1, eps=1e-8)
    spectrum = torch.fft.rfft2(unit, s=(2 * height, 2 * width))
    products = torch.fft.irfft2(spectrum.abs().square().sum(1), s=(2 * height, 2 * width))
    rows = torch.fft.fftfreq(2 * height, 1 / (2 * height)).abs().to(z.device)
    columns = torch.fft.fftfreq(2 * width, 1 / (2 * width)).abs().to(z.device)
    pairs = (height - rows).clamp_min(0)[:, None] * (width - columns).clamp_min(0)
    distance = (rows[:, None] + columns).long()
    kept = pairs > 0
    size = height + width - 1
    sums = torch.zeros(len(z), size, dtype=torch.float64, device=z.device)
    counts = torch.zeros(size, dtype=torch.float64, device=z.device)
    sums.index_add_(1, distance[kept], products[:, kept])
    counts.index_add_(0, distance[kept], pairs[kept].double())
    return sums, counts
