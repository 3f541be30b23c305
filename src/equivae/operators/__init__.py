"""Latent operators in closed form: fitting, fitted transforms, and what they are as representations."""

from equivae.operators.fit import FitOptions, fit_latent_op, fit_operators
from equivae.operators.group import FittedGroup, fit_latent_group
from equivae.operators.modules import ConvOperator, LatentOperator, ResidualOperator
from equivae.operators.report import Candidate, FitReport
from equivae.operators.structure import (
    SignSignature,
    closure_error,
    nearest_involution,
    sign_signature,
)
from equivae.operators.transform import (
    FittedTransform,
    load_latent_op,
    operators_of,
    save_operators,
)

__all__ = [
    "Candidate",
    "ConvOperator",
    "FitOptions",
    "FitReport",
    "FittedGroup",
    "FittedTransform",
    "LatentOperator",
    "ResidualOperator",
    "SignSignature",
    "closure_error",
    "fit_latent_group",
    "fit_latent_op",
    "fit_operators",
    "load_latent_op",
    "nearest_involution",
    "operators_of",
    "save_operators",
    "sign_signature",
]
