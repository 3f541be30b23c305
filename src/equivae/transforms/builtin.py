"""The library's own transforms and their names in the registry."""

from __future__ import annotations

from collections.abc import Callable

from equivae.transforms import combinators
from equivae.transforms.audio import Gain, Mix
from equivae.transforms.base import Transform
from equivae.transforms.cells import Crop, Shift
from equivae.transforms.cosine import CosineCut
from equivae.transforms.families import (
    Blend,
    RandomAffine,
    RandomBlend,
    RandomCrop,
    RandomFractionalShift,
    RandomHakuAffine,
    RandomPerspective,
    RandomRotate,
    RandomScale,
    RandomShift,
    RandomTranslate,
    RandomZoom,
)
from equivae.transforms.lattice import LATTICE, LatticeTransform
from equivae.transforms.paste import Paste
from equivae.transforms.photometric import (
    Blur,
    Brightness,
    ColourNegative,
    Contrast,
    Exposure,
    Gamma,
    Greyscale,
    Hue,
    Saturation,
    Sharpen,
    WhiteBalance,
)
from equivae.transforms.registry import get_transform, register_builtin
from equivae.transforms.representations import signed_flip
from equivae.transforms.resampled import (
    Affine,
    FractionalShift,
    HakuAffine,
    Perspective,
    Rotate,
    Scale,
    Shear,
    Translate,
    Zoom,
)
from equivae.transforms.time import Polarity, TimeReverse, TimeShift

__all__ = ["register_builtins"]

_VERTICAL, _HORIZONTAL = (-2, -1), (-4, -3)  # the channels in AuraEquiVAE's published usage


def _constant(transform: LatticeTransform) -> Callable[[], Transform]:
    return lambda: transform


def _signed(grid: str, default: tuple[int, ...]) -> Callable[..., Transform]:
    def build(channels: tuple[int, ...] = default) -> Transform:
        return signed_flip(get_transform(grid), f"signed_{grid}", channels)

    return build


_GROUPS: dict[str, dict[str, Callable[..., Transform]]] = {
    "lattice": {"shift": Shift, "crop": Crop},
    "resampled": {
        "scale": Scale,
        "zoom": Zoom,
        "rotate": Rotate,
        "translate": Translate,
        "fractional_shift": FractionalShift,
        "shear": Shear,
        "affine": Affine,
        "haku_affine": HakuAffine,
        "cosine_cut": CosineCut,
        "perspective": Perspective,
    },
    "photometric": {
        "exposure": Exposure,
        "brightness": Brightness,
        "contrast": Contrast,
        "saturation": Saturation,
        "greyscale": Greyscale,
        "hue": Hue,
        "gamma": Gamma,
        "colour_negative": ColourNegative,
        "white_balance": WhiteBalance,
        "blur": Blur,
        "sharpen": Sharpen,
    },
    "representation": {
        "signed_hflip": _signed("hflip", _HORIZONTAL),
        "signed_vflip": _signed("vflip", _VERTICAL),
        "signed_rot180": _signed("rot180", _HORIZONTAL + _VERTICAL),
    },
    "mixing": {"blend": Blend, "paste": Paste},
    "time": {"time_reverse": TimeReverse, "time_shift": TimeShift},
    "audio": {"polarity": Polarity, "gain": Gain, "mix": Mix},
    "random": {
        "random_rot90": combinators.random_rot90,
        "random_flip": combinators.random_flip,
        "random_signed_flip": combinators.random_signed_flip,
        "random_shift": RandomShift,
        "random_crop": RandomCrop,
        "random_scale": RandomScale,
        "random_zoom": RandomZoom,
        "random_rotate": RandomRotate,
        "random_translate": RandomTranslate,
        "random_fractional_shift": RandomFractionalShift,
        "random_affine": RandomAffine,
        "random_haku_affine": RandomHakuAffine,
        "random_perspective": RandomPerspective,
        "random_blend": RandomBlend,
        "eqvae": combinators.eqvae,
        "hakulatent": combinators.hakulatent,
        "scale_equivariance": combinators.scale_equivariance,
        "spectrum_matching": combinators.spectrum_matching,
    },
    "combinator": {
        "choice": combinators.choice,
        "compose": combinators.compose,
        "maybe": combinators.maybe,
    },
}


def register_builtins() -> None:
    """Fill the registry; called once, when `equivae.transforms` is imported."""
    for transform in LATTICE:
        register_builtin(transform.name, _constant(transform), "lattice")
    for group, members in _GROUPS.items():
        for name, factory in members.items():
            register_builtin(name, factory, group)
