"""Latents that trainers keep on disk: read, transformed by a latent op and written back, without a VAE.

Importing it needs torch, numpy and safetensors alone.
"""

from equivae.caches.augment import LatentAugment
from equivae.caches.detection import FORMATS, detect
from equivae.caches.layout import CacheFormat
from equivae.caches.report import CacheReport
from equivae.caches.run import transform
from equivae.caches.space import LatentSpace

__all__ = [
    "FORMATS",
    "CacheFormat",
    "CacheReport",
    "LatentAugment",
    "LatentSpace",
    "detect",
    "transform",
]
