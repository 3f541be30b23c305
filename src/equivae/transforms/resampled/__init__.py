"""Resampled transforms: rotate, translate, zoom, shear, affine, perspective, scale, fractional shift."""

from equivae.transforms.resampled.fractional import FractionalShift
from equivae.transforms.resampled.maps import (
    Affine,
    HakuAffine,
    Perspective,
    Rotate,
    Shear,
    Translate,
    Zoom,
)
from equivae.transforms.resampled.scale import Scale

__all__ = [
    "Affine",
    "FractionalShift",
    "HakuAffine",
    "Perspective",
    "Rotate",
    "Scale",
    "Shear",
    "Translate",
    "Zoom",
]
