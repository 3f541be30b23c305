"""Measuring equivariance, and showing it."""

from equivae.evaluation.evaluate import evaluate
from equivae.evaluation.metrics import Metrics, TransformMetrics, psnr
from equivae.evaluation.report import Report

__all__ = ["Metrics", "Report", "TransformMetrics", "evaluate", "psnr"]
