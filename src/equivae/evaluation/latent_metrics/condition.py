"""Condition number: how much more the widest direction of the channels varies than the narrowest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equivae.evaluation.latent_metrics.base import Moments

__all__ = ["CONDITION_NUMBER", "condition_number"]


def condition_number(covariance: Tensor) -> float:
    """Largest by smallest eigenvalue of the channels' covariance `(c, c)`.

    1 for a ball, infinite for a plane.
    """
    if not covariance.isfinite().all():
        return math.nan
    values = torch.linalg.eigvalsh(covariance)
    low, high = float(values[0]), float(values[-1])
    if high <= 0:
        return math.nan  # nothing varies
    return high / low if low > 1e-14 * high else math.inf


CONDITION_NUMBER = Moments(
    "condition_number",
    "condition number",
    "largest by smallest eigenvalue of the channels' covariance",
    "standard",
    "",
    False,
    "fast",
    of=lambda covariance, fourth: condition_number(covariance),
)
