"""Measuring equivariance: a VAE and images in, numbers out."""

from equivae._moved import moved_names
from equivae.evaluation.latent_statistics import latent_statistics
from equivae.evaluation.metrics import measure
from equivae.evaluation.options import MeasureOptions
from equivae.evaluation.results import (
    GroupMetrics,
    LatentStatistics,
    Metrics,
    Panel,
    Spread,
    Sweep,
    TransformMetrics,
)
from equivae.units import psnr

__all__ = [
    "GroupMetrics",
    "LatentStatistics",
    "MeasureOptions",
    "Metrics",
    "Panel",
    "Spread",
    "Sweep",
    "TransformMetrics",
    "latent_statistics",
    "measure",
    "psnr",
]

__getattr__ = moved_names(
    __name__,
    dict.fromkeys(("Comparison", "Report", "compare", "evaluate"), "equivae.reporting"),
)
