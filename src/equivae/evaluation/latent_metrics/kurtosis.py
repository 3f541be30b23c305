"""Kurtosis: how much heavier the tails of the channels are than a Gaussian's."""

from __future__ import annotations

import math

from torch import Tensor

from equivae.evaluation.latent_metrics.base import Moments

__all__ = ["KURTOSIS", "excess_kurtosis"]


def excess_kurtosis(covariance: Tensor, fourth: Tensor) -> float:
    """`E(z - E z)⁴ / (E(z - E z)²)² - 3`, mean over the channels that vary; 0 for a Gaussian, -2 for ±1."""
    variances = covariance.diagonal()
    varying = variances > 1e-12 * variances.max().clamp_min(1e-300)
    if not bool(varying.any()):
        return math.nan
    return float((fourth[varying] / variances[varying].square()).mean()) - 3


KURTOSIS = Moments(
    "kurtosis",
    "excess kurtosis",
    "fourth central moment by the squared variance, minus 3; mean over the channels",
    "Fisher's definition",
    "",
    None,
    "fast",
    of=excess_kurtosis,
)
