"""The one seam to a VAE: everything else in the library encodes and decodes through it.

Autoencoders are recognised by what their calls take and return, never by their class, so a new diffusers
class or a module of your own works when its `encode` returns a posterior, a latent or an output that
holds one, and its `decode` an image, a video, a wave or an output that holds one.
"""

from equivae.autoencoder.adapters import register_built_in_adapters
from equivae.autoencoder.bottleneck import Bottleneck, NoBottleneckError, find_bottleneck
from equivae.autoencoder.calls import register_adapter
from equivae.autoencoder.checks import (
    check_images,
    check_resolution,
    check_trainable,
    check_transforms,
    layout_of,
    moves_axis,
    trainable_halves,
)
from equivae.autoencoder.conventions import LatentConvention, register_latent_convention
from equivae.autoencoder.copying import copy_module
from equivae.autoencoder.geometry import Axis, Geometry, Layout
from equivae.autoencoder.modes import at_top_level, evaluating, measuring
from equivae.autoencoder.naming import plain_state_dict, uncompiled
from equivae.autoencoder.precision import dtypes_of, restore_dtypes
from equivae.autoencoder.view import Autoencoder

__all__ = [
    "Autoencoder",
    "Axis",
    "Bottleneck",
    "Geometry",
    "LatentConvention",
    "Layout",
    "NoBottleneckError",
    "at_top_level",
    "check_images",
    "check_resolution",
    "check_trainable",
    "check_transforms",
    "copy_module",
    "dtypes_of",
    "evaluating",
    "find_bottleneck",
    "layout_of",
    "measuring",
    "moves_axis",
    "plain_state_dict",
    "register_adapter",
    "register_latent_convention",
    "restore_dtypes",
    "trainable_halves",
    "uncompiled",
]

register_built_in_adapters()
