"""Random maps of the plane: rotations, translations, zooms, affine and projective maps."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Union

import torch

from equivae.errors import InputError
from equivae.transforms.base import Transform
from equivae.transforms.checks import check_between, check_choices, check_range, is_number
from equivae.transforms.families.drawing import Family, Places, Sampler
from equivae.transforms.placing import CellTransform
from equivae.transforms.resampled.maps import (
    Affine,
    HakuAffine,
    Perspective,
    Rotate,
    Translate,
    Zoom,
)
from equivae.transforms.resampled.parameters import Parameter
from equivae.transforms.warp import Interpolation, PaddingMode, check_option

__all__ = [
    "RandomAffine",
    "RandomHakuAffine",
    "RandomPerspective",
    "RandomRotate",
    "RandomTranslate",
    "RandomZoom",
]

Range = Union[float, tuple[float, float]]


def _between(limit: Range, what: str) -> tuple[float, float]:
    """`(low, high)` of a range, or `(-limit, limit)` of one number, as in kornia."""
    if isinstance(limit, (tuple, list)):
        check_range(what, limit)
        return float(limit[0]), float(limit[1])
    if not is_number(limit):
        raise InputError(f"{what} must be a number or a range (low, high), got {limit!r}.")
    return -abs(float(limit)), abs(float(limit))


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class _RandomWarp(Family, CellTransform):
    """Options that the drawn warps share.

    Args:
        same_on_batch: one draw for the whole batch instead of one per sample.
        interpolation, padding_mode, antialias, cell: see `Warp`.
    """

    same_on_batch: bool = False
    interpolation: Interpolation = "bilinear"
    padding_mode: PaddingMode = "zeros"
    antialias: bool = True
    exact = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("interpolation", self.interpolation, Interpolation)
        check_option("padding_mode", self.padding_mode, PaddingMode)
        for field in dataclasses.fields(self):
            if field.type == "Range":
                _between(getattr(self, field.name), field.name)

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "interpolation": self.interpolation,
            "padding_mode": self.padding_mode,
            "antialias": self.antialias,
            "cell": self.cell,
        }

    @abstractmethod
    def _warp(self, sampler: Sampler) -> Transform: ...

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        return self._warp(Sampler(batch_size, generator, self.same_on_batch))


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomRotate(_RandomWarp):
    """A rotation by any angle.

    Args:
        degrees: at most so much to either side, or a range.
    """

    degrees: Range = 180.0
    registered_name = "random_rotate"

    def _warp(self, sampler: Sampler) -> Transform:
        angle = sampler.uniform(*_between(self.degrees, "degrees"))
        return Rotate(angle=angle, **self._options)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomTranslate(_RandomWarp):
    """A shift by any share of the side.

    Args:
        y: at most so much up or down, or a range; shares of the height.
        x: the same to the left or right.
    """

    y: Range = 0.25
    x: Range = 0.25
    registered_name = "random_translate"

    def _warp(self, sampler: Sampler) -> Transform:
        y = sampler.uniform(*_between(self.y, "y"))
        return Translate(y=y, x=sampler.uniform(*_between(self.x, "x")), **self._options)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomZoom(_RandomWarp):
    """Zooming by a drawn factor into, or out of, a drawn place. `"random_zoom(factors=(1.25,1.5,2))"`
    is HakuLatent's scale up and crop.

    Args:
        factors: the values that the factor may have, or `None` for any within `between`.
        between: the range of the factor when `factors` is `None`.
        centred: keep the centre instead of drawing a place.
        places: `"any"`, or `"five"`: the corners and the centre, as HakuLatent has them.
    """

    factors: tuple[float, ...] | None = None
    between: tuple[float, float] = (1.0, 2.0)
    centred: bool = False
    places: Places = "any"
    registered_name = "random_zoom"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("between", self.between, 0)
        check_option("places", self.places, Places)
        if self.factors is not None:
            check_choices("factors", self.factors, 1e-6)

    def _warp(self, sampler: Sampler) -> Transform:
        if self.factors is None:
            factor = sampler.uniform(*self.between)
        else:
            factor = torch.tensor(sampler.pick(self.factors), dtype=torch.float64)
        place: tuple[Parameter, Parameter] = (0.5, 0.5)
        if not self.centred:
            place = sampler.place(self.places)
        return Zoom(factor=factor, y=place[0], x=place[1], **self._options)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomAffine(_RandomWarp):
    """HakuLatent's random affine map, with its ranges and its reflection padding.

    Args:
        degrees: rotation, at most to either side, or a range.
        translate: at most so much of the side, or a range.
        scale: the range of the factor.
        shear: in degrees, on each axis.
    """

    degrees: Range = 30.0
    translate: Range = 0.0
    scale: tuple[float, float] = (0.8, 1.2)
    shear: Range = 10.0
    padding_mode: PaddingMode = "reflection"
    registered_name = "random_affine"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("scale", self.scale, 0)

    def _warp(self, sampler: Sampler) -> Transform:
        shear, move = _between(self.shear, "shear"), _between(self.translate, "translate")
        return Affine(
            angle=sampler.uniform(*_between(self.degrees, "degrees")),
            translate_y=sampler.uniform(*move),
            translate_x=sampler.uniform(*move),
            scale=sampler.uniform(*self.scale),
            shear_y=sampler.uniform(*shear),
            shear_x=sampler.uniform(*shear),
            **self._options,
        )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomHakuAffine(_RandomWarp):
    """HakuLatent's random affine map as its code has it, see `HakuAffine`; one draw for the batch.

    Args:
        degrees: rotation, at most to either side, or a range.
        translate: at most so much of the side, or a range.
        scale: the range of the factor by which the source is looked up farther apart.
        shear_x: in degrees, or a range.
        shear_y: likewise.
    """

    degrees: Range = 180.0
    translate: Range = 0.1
    scale: tuple[float, float] = (0.8, 1.2)
    shear_x: Range = 10.0
    shear_y: Range = 5.0
    same_on_batch: bool = True
    padding_mode: PaddingMode = "reflection"
    antialias: bool = False
    registered_name = "random_haku_affine"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("scale", self.scale, 0)

    def _warp(self, sampler: Sampler) -> Transform:
        move = _between(self.translate, "translate")
        return HakuAffine(
            angle=sampler.uniform(*_between(self.degrees, "degrees")),
            scale=sampler.uniform(*self.scale),
            shear_x=sampler.uniform(*_between(self.shear_x, "shear_x")),
            shear_y=sampler.uniform(*_between(self.shear_y, "shear_y")),
            translate_x=sampler.uniform(*move),
            translate_y=sampler.uniform(*move),
            **self._options,
        )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomPerspective(_RandomWarp):
    """Every corner moves inwards by a drawn amount.

    Args:
        distortion_scale: 0 to 1; at 1 a corner may reach the centre, as in torchvision and kornia.
    """

    distortion_scale: float = 0.5
    registered_name = "random_perspective"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between("distortion_scale", self.distortion_scale, 0, 1)

    def _warp(self, sampler: Sampler) -> Transform:
        inwards = torch.tensor([[1, 1], [1, -1], [-1, -1], [-1, 1]], dtype=torch.float64)
        amount = sampler.uniform(0.0, 0.5 * self.distortion_scale, 4, 2)
        return Perspective(corners=amount * inwards, **self._options)
