"""Exact equivariance without training."""

from equivae.symmetrize.domain import domain_weights
from equivae.symmetrize.module import SymmetrizedVAE
from equivae.symmetrize.report import SymmetrizeReport
from equivae.symmetrize.symmetrize import symmetrize

__all__ = ["SymmetrizeReport", "SymmetrizedVAE", "domain_weights", "symmetrize"]
