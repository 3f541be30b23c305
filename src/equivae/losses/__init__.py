"""Objectives around any autoencoder: terms that compose by weight."""

from equivae.losses.adversarial import AdversarialLoss
from equivae.losses.alignment import AlignmentLoss
from equivae.losses.catalogue import TERMS, make_terms, read_terms
from equivae.losses.charbonnier import CharbonnierLoss
from equivae.losses.consistency import LatentConsistencyLoss
from equivae.losses.encoder_side import EncoderTerm
from equivae.losses.equivariance import EquivarianceLoss, LossOutput
from equivae.losses.kl import KLLoss
from equivae.losses.l1 import L1Loss
from equivae.losses.latent_spectrum import LatentSpectrumLoss
from equivae.losses.latent_std import LatentStdLoss
from equivae.losses.local_correlation import LocalCorrelationLoss
from equivae.losses.low_pass import LowPassMSELoss
from equivae.losses.lpips import LPIPSLoss
from equivae.losses.mse import MSELoss
from equivae.losses.multi_scale import MultiScaleMSELoss
from equivae.losses.objective import Objective
from equivae.losses.perceptual import PerceptualLoss
from equivae.losses.spectrum_matching import EncoderSpectrumLoss
from equivae.losses.ssim import MSSSIMLoss, SSIMLoss
from equivae.losses.style import StyleLoss
from equivae.losses.terms import ImageTerm, Term, TermContext
from equivae.losses.total_variation import TotalVariationLoss

__all__ = [
    "TERMS",
    "AdversarialLoss",
    "AlignmentLoss",
    "CharbonnierLoss",
    "EncoderSpectrumLoss",
    "EncoderTerm",
    "EquivarianceLoss",
    "ImageTerm",
    "KLLoss",
    "L1Loss",
    "LPIPSLoss",
    "LatentConsistencyLoss",
    "LatentSpectrumLoss",
    "LatentStdLoss",
    "LocalCorrelationLoss",
    "LossOutput",
    "LowPassMSELoss",
    "MSELoss",
    "MSSSIMLoss",
    "MultiScaleMSELoss",
    "Objective",
    "PerceptualLoss",
    "SSIMLoss",
    "StyleLoss",
    "Term",
    "TermContext",
    "TotalVariationLoss",
    "make_terms",
    "read_terms",
]
