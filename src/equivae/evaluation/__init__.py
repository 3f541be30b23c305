"""Measuring equivariance: a VAE and images in, numbers out."""

from equivae._moved import moved_names
from equivae.evaluation.latent_statistics import latent_statistics
from equivae.evaluation.metrics import measure
from equivae.evaluation.options import MeasureOptions
from equivae.evaluation.pairing import Difference, differences
from equivae.evaluation.results import (
    GroupMetrics,
    LatentStatistics,
    Metrics,
    Panel,
    ProtocolMetrics,
    Spread,
    Sweep,
    TransformMetrics,
)
from equivae.units import psnr

__all__ = [
    "Difference",
    "GroupMetrics",
    "LatentStatistics",
    "MeasureOptions",
    "Metrics",
    "Panel",
    "ProtocolMetrics",
    "Spread",
    "Sweep",
    "TransformMetrics",
    "differences",
    "latent_statistics",
    "measure",
    "psnr",
]

__getattr__ = moved_names(
    __name__,
    dict.fromkeys(("Comparison", "Report", "compare", "evaluate"), "equivae.reporting"),
)
