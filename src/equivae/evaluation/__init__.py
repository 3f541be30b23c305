"""Measuring equivariance, and showing it."""

from equivae.evaluation.compare import Comparison, compare
from equivae.evaluation.evaluate import evaluate
from equivae.evaluation.metrics import psnr
from equivae.evaluation.report import Report
from equivae.evaluation.results import (
    GroupMetrics,
    LatentStatistics,
    Metrics,
    Panel,
    Spread,
    Sweep,
    TransformMetrics,
)

__all__ = [
    "Comparison",
    "GroupMetrics",
    "LatentStatistics",
    "Metrics",
    "Panel",
    "Report",
    "Spread",
    "Sweep",
    "TransformMetrics",
    "compare",
    "evaluate",
    "psnr",
]
