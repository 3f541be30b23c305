"""Exact equivariance without training."""

# diffusers' pipelines look here for the class that says how a SymmetrizedVAE is loaded.
from diffusers import ModelMixin as ModelMixin

from equivae.symmetry.domain import domain_weights
from equivae.symmetry.fit import symmetrize
from equivae.symmetry.module import SymmetrizedVAE
from equivae.symmetry.report import SymmetrizeReport

__all__ = ["SymmetrizeReport", "SymmetrizedVAE", "domain_weights", "symmetrize"]
