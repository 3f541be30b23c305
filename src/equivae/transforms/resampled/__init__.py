"""Resampled transforms: rotate, translate, zoom, shear, affine, perspective, scale, fractional shift."""

from equivae.transforms.resampled.fractional import FractionalShift
from equivae.transforms.resampled.maps import Affine, Perspective, Rotate, Shear, Translate, Zoom
from equivae.transforms.resampled.scale import Scale

__all__ = [
    "Affine",
    "FractionalShift",
    "Perspective",
    "Rotate",
    "Scale",
    "Shear",
    "Translate",
    "Zoom",
]
