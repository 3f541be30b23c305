"""Exact equivariance without training."""

from equivae.symmetry.domain import domain_weights
from equivae.symmetry.fit import symmetrize
from equivae.symmetry.module import SymmetrizedVAE
from equivae.symmetry.report import SymmetrizeReport

__all__ = ["SymmetrizeReport", "SymmetrizedVAE", "domain_weights", "symmetrize"]
