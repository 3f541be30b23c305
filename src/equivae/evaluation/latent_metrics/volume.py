"""Volume ratio: how much of the ball of the same variance the channels fill."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equivae.evaluation.latent_metrics.base import Moments

__all__ = ["VOLUME_RATIO", "volume_ratio"]


def volume_ratio(covariance: Tensor) -> float:
    """Geometric by arithmetic mean of the eigenvalues of the channels' covariance `(c, c)`.

    The volume of the ellipsoid by that of the ball of the same total variance, to the power `2 / c`: 1 for a
    ball, 0 for a plane.
    """
    if not covariance.isfinite().all():
        return math.nan
    values = torch.linalg.eigvalsh(covariance).clamp_min(0)
    mean = values.mean()
    if not float(mean) > 0:
        return math.nan  # nothing varies
    return float((values / mean).log().mean().exp())


VOLUME_RATIO = Moments(
    "volume_ratio",
    "volume ratio",
    "det(C)^(1/c) / (tr(C) / c), C the channels' covariance",
    "Mauchly's sphericity, 1940, to the power 1/c",
    "",
    True,
    "fast",
    of=lambda covariance, fourth: volume_ratio(covariance),
)
