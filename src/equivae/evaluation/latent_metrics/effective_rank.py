"""Effective rank: over how many directions the channels spread."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equivae.evaluation.latent_metrics.base import Moments

__all__ = ["EFFECTIVE_RANK", "effective_rank"]


def effective_rank(covariance: Tensor) -> float:
    """`exp` of the entropy of the singular values of the centred cells, from their covariance `(c, c)`.

    `c` where all directions vary alike, 1 where one varies alone, 0 where nothing does.
    """
    if not covariance.isfinite().all():
        return math.nan
    values = torch.linalg.eigvalsh(covariance).clamp_min(0).sqrt()
    if not float(values.sum()) > 0:
        return 0.0
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


EFFECTIVE_RANK = Moments(
    "effective_rank",
    "effective rank",
    "exp(-sum p log p), p the singular values of the centred cells as shares of their sum",
    "Roy and Vetterli, EUSIPCO 2007",
    "",
    True,
    "fast",
    of=lambda covariance, fourth: effective_rank(covariance),
)
