"""Objectives around any autoencoder."""

from equivae.losses.equivariance import EquivarianceLoss, LossOutput

__all__ = ["EquivarianceLoss", "LossOutput"]
