"""Objectives around any autoencoder: terms that compose by weight."""

from equivae.losses.encoder_side import EncoderTerm
from equivae.losses.equivariance import EquivarianceLoss, LossOutput
from equivae.losses.objective import Objective
from equivae.losses.terms import ImageTerm, Term

__all__ = ["EncoderTerm", "EquivarianceLoss", "ImageTerm", "LossOutput", "Objective", "Term"]
