"""Make any diffusers VAE equivariant: a transform of the latent decodes to that of the image."""

from equivae import data, testing, zoo
from equivae.analysis import LatentAnalysis, analyze_latents
from equivae.autoencoder import Autoencoder, register_adapter
from equivae.errors import InputError, NonFiniteLossError
from equivae.evaluation import Comparison, Report, compare, evaluate
from equivae.losses import EquivarianceLoss, LossOutput
from equivae.operators import FittedTransform, fit_latent_group, fit_latent_op, load_latent_op
from equivae.pretrained import load_vae
from equivae.symmetrize import SymmetrizedVAE, symmetrize
from equivae.training import FinetuneConfig, FinetuneResult, finetune
from equivae.transforms import (
    Group,
    Transform,
    get_group,
    get_transform,
    list_groups,
    list_transforms,
    register_transform,
    resolve_transforms,
)

__version__ = "0.1.0"
__all__ = [
    "Autoencoder",
    "Comparison",
    "EquivarianceLoss",
    "FinetuneConfig",
    "FinetuneResult",
    "FittedTransform",
    "Group",
    "InputError",
    "LatentAnalysis",
    "LossOutput",
    "NonFiniteLossError",
    "Report",
    "SymmetrizedVAE",
    "Transform",
    "analyze_latents",
    "compare",
    "data",
    "evaluate",
    "finetune",
    "fit_latent_group",
    "fit_latent_op",
    "get_group",
    "get_transform",
    "list_groups",
    "list_transforms",
    "load_latent_op",
    "load_vae",
    "register_adapter",
    "register_transform",
    "resolve_transforms",
    "symmetrize",
    "testing",
    "zoo",
]
