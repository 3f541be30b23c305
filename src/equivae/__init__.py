"""Make any diffusers VAE equivariant: a transform of the latent decodes to that of the image."""

from equivae import data, testing, zoo
from equivae.autoencoder import Autoencoder, load_vae, register_adapter
from equivae.errors import InputError, NonFiniteLossError
from equivae.evaluation import Report, evaluate
from equivae.losses import EquivarianceLoss, LossOutput
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
    "EquivarianceLoss",
    "FinetuneConfig",
    "FinetuneResult",
    "Group",
    "InputError",
    "LossOutput",
    "NonFiniteLossError",
    "Report",
    "Transform",
    "data",
    "evaluate",
    "finetune",
    "get_group",
    "get_transform",
    "list_groups",
    "list_transforms",
    "load_vae",
    "register_adapter",
    "register_transform",
    "resolve_transforms",
    "testing",
    "zoo",
]
