"""Showing what was measured: reports, comparisons, cards, figures."""

from equivae.reporting.analysis import LatentAnalysis, TransformAnalysis, analyze_latents
from equivae.reporting.compare import Comparison, compare
from equivae.reporting.evaluate import evaluate
from equivae.reporting.playground import Playground, playground
from equivae.reporting.report import Report

__all__ = [
    "Comparison",
    "LatentAnalysis",
    "Playground",
    "Report",
    "TransformAnalysis",
    "analyze_latents",
    "compare",
    "evaluate",
    "playground",
]
