"""Make any diffusers VAE equivariant: a transform of the latent decodes to that of the image.

Everything below is imported on first use, so that `import equivae` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # what type checkers and editors see; `_EXPORTS` is the same list at run time
    from equivae import data as data
    from equivae import testing as testing
    from equivae import zoo as zoo
    from equivae.analysis import LatentAnalysis as LatentAnalysis
    from equivae.analysis import analyze_latents as analyze_latents
    from equivae.autoencoder import Autoencoder as Autoencoder
    from equivae.autoencoder import register_adapter as register_adapter
    from equivae.errors import InputError as InputError
    from equivae.errors import NonFiniteLossError as NonFiniteLossError
    from equivae.errors import UploadError as UploadError
    from equivae.evaluation import Comparison as Comparison
    from equivae.evaluation import Report as Report
    from equivae.evaluation.compare import compare as compare
    from equivae.evaluation.evaluate import evaluate as evaluate
    from equivae.latents import LatentStatistics as LatentStatistics
    from equivae.latents import latent_statistics as latent_statistics
    from equivae.latents import scale_latents as scale_latents
    from equivae.latents import transform_latents as transform_latents
    from equivae.latents import unscale_latents as unscale_latents
    from equivae.losses import EquivarianceLoss as EquivarianceLoss
    from equivae.losses import LossOutput as LossOutput
    from equivae.operators import FittedTransform as FittedTransform
    from equivae.operators import fit_latent_group as fit_latent_group
    from equivae.operators import fit_latent_op as fit_latent_op
    from equivae.operators import load_latent_op as load_latent_op
    from equivae.padding import get_padding_mode as get_padding_mode
    from equivae.padding import set_padding_mode as set_padding_mode
    from equivae.padding import using_padding_mode as using_padding_mode
    from equivae.pretrained import load_vae as load_vae
    from equivae.single_file import export_single_file as export_single_file
    from equivae.symmetrize import SymmetrizedVAE as SymmetrizedVAE
    from equivae.symmetrize.symmetrize import symmetrize as symmetrize
    from equivae.training import FinetuneConfig as FinetuneConfig
    from equivae.training import FinetuneResult as FinetuneResult
    from equivae.training.finetune import finetune as finetune
    from equivae.transforms import Group as Group
    from equivae.transforms import Transform as Transform
    from equivae.transforms import get_group as get_group
    from equivae.transforms import get_transform as get_transform
    from equivae.transforms import list_groups as list_groups
    from equivae.transforms import list_transforms as list_transforms
    from equivae.transforms import register_transform as register_transform
    from equivae.transforms import resolve_transforms as resolve_transforms

_MODULES = ("data", "testing", "zoo")
_EXPORTS = {
    "analysis": ("LatentAnalysis", "analyze_latents"),
    "autoencoder": ("Autoencoder", "register_adapter"),
    "errors": ("InputError", "NonFiniteLossError", "UploadError"),
    "evaluation": ("Comparison", "Report", "compare", "evaluate"),
    "latents": (
        "LatentStatistics",
        "latent_statistics",
        "scale_latents",
        "transform_latents",
        "unscale_latents",
    ),
    "losses": ("EquivarianceLoss", "LossOutput"),
    "operators": ("FittedTransform", "fit_latent_group", "fit_latent_op", "load_latent_op"),
    "padding": ("get_padding_mode", "set_padding_mode", "using_padding_mode"),
    "pretrained": ("load_vae",),
    "single_file": ("export_single_file",),
    "symmetrize": ("SymmetrizedVAE", "symmetrize"),
    "training": ("FinetuneConfig", "FinetuneResult", "finetune"),
    "transforms": (
        "Group",
        "Transform",
        "get_group",
        "get_transform",
        "list_groups",
        "list_transforms",
        "register_transform",
        "resolve_transforms",
    ),
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = sorted([*_MODULES, *_HOME])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name in _MODULES or name in _EXPORTS:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    dunder = (name for name in globals() if name.startswith("__"))
    return sorted({*dunder, *__all__, *_EXPORTS})


class _Package(ModuleType):
    """The import of a submodule does not hide the export of the same name, `symmetrize`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
