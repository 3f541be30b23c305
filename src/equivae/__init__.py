"""Make any diffusers VAE equivariant: a transform of the latent decodes to that of the image."""

from equivae import data, testing, zoo
from equivae.analysis import LatentAnalysis, analyze_latents
from equivae.autoencoder import Autoencoder, register_adapter
from equivae.errors import InputError, NonFiniteLossError, UploadError
from equivae.evaluation import Comparison, Report, compare, evaluate
from equivae.latents import (
    LatentStatistics,
    latent_statistics,
    scale_latents,
    transform_latents,
    unscale_latents,
)
from equivae.losses import EquivarianceLoss, LossOutput
from equivae.operators import FittedTransform, fit_latent_group, fit_latent_op, load_latent_op
from equivae.padding import get_padding_mode, set_padding_mode, using_padding_mode
from equivae.pretrained import load_vae
from equivae.single_file import export_single_file
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
    "LatentStatistics",
    "LossOutput",
    "NonFiniteLossError",
    "Report",
    "SymmetrizedVAE",
    "Transform",
    "UploadError",
    "analyze_latents",
    "compare",
    "data",
    "evaluate",
    "export_single_file",
    "finetune",
    "fit_latent_group",
    "fit_latent_op",
    "get_group",
    "get_padding_mode",
    "get_transform",
    "latent_statistics",
    "list_groups",
    "list_transforms",
    "load_latent_op",
    "load_vae",
    "register_adapter",
    "register_transform",
    "resolve_transforms",
    "scale_latents",
    "set_padding_mode",
    "symmetrize",
    "testing",
    "transform_latents",
    "unscale_latents",
    "using_padding_mode",
    "zoo",
]
