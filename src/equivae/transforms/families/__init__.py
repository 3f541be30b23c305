"""Random families: transforms whose parameters are drawn, per call or per sample."""

from equivae.transforms.families.blending import Blend, RandomBlend
from equivae.transforms.families.drawing import FIVE_PLACES, RandomTransform, Sampler
from equivae.transforms.families.grids import (
    RandomCrop,
    RandomFractionalShift,
    RandomScale,
    RandomShift,
)
from equivae.transforms.families.per_sample import PerSample
from equivae.transforms.families.warps import (
    RandomAffine,
    RandomHakuAffine,
    RandomPerspective,
    RandomRotate,
    RandomTranslate,
    RandomZoom,
)

__all__ = [
    "FIVE_PLACES",
    "Blend",
    "PerSample",
    "RandomAffine",
    "RandomBlend",
    "RandomCrop",
    "RandomFractionalShift",
    "RandomHakuAffine",
    "RandomPerspective",
    "RandomRotate",
    "RandomScale",
    "RandomShift",
    "RandomTransform",
    "RandomTranslate",
    "RandomZoom",
    "Sampler",
]
