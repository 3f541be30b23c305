"""Photometric transforms: they change the values of pixels and leave them where they are.

Their plain latent op leaves the latent untouched, since nobody knows how a VAE writes colours down; what
belongs there is fitted (`fit_latent_op`). Values are those of `u = (x + 1) / 2` in [0, 1]. They may leave
that range, as they do in an image editor of floating point: nothing is clipped, so that exposures compose.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from equivae.errors import InputError
from equivae.transforms.base import Transform
from equivae.transforms.checks import check_fields, is_number
from equivae.transforms.spelling import spell

__all__ = [
    "Blur",
    "Brightness",
    "ColourNegative",
    "Contrast",
    "Exposure",
    "Gamma",
    "Greyscale",
    "Hue",
    "Photometric",
    "Saturation",
    "Sharpen",
    "WhiteBalance",
]

_LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601, as in PIL and torchvision


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Photometric(Transform):
    """A change of values in place: `u -> f(u)`; the latent stays as it is until an op is fitted."""

    exact = False
    layouts = ("image", "video")
    keeps_grid = True
    registered_name = ""

    def __post_init__(self) -> None:
        check_fields(self)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, float) and not is_number(value):
                raise InputError(f"{field.name} must be one finite number, got {value!r}.")

    @property
    def name(self) -> str:  # type: ignore[override]
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return spell(self.registered_name, **values) if values else self.registered_name

    @abstractmethod
    def change(self, u: Tensor) -> Tensor:
        """`f(u)` for images `(B, C, ..., H, W)` in [0, 1]."""

    def pixel(self, x: Tensor) -> Tensor:
        return self.change((x + 1) / 2) * 2 - 1

    def latent(self, z: Tensor) -> Tensor:
        return z

    def carry_mask(self, x: Tensor, valid: Tensor) -> Tensor:
        return valid

    def _positive(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)!r}.")


def _channels(u: Tensor) -> int:
    """The axis of the channels."""
    return 1 if u.ndim > 3 else 0


def _mix(u: Tensor, matrix: list[list[float]], name: str) -> Tensor:
    """Colours times a 3x3 matrix."""
    axis = _channels(u)
    if u.shape[axis] != 3:
        raise InputError(
            f"transform {name!r} mixes three colours, got images of {u.shape[axis]} channels."
        )
    colours = u.unbind(axis)
    rows = [
        sum(
            (weight * colour for weight, colour in zip(row, colours, strict=True)),
            0 * u.select(axis, 0),
        )
        for row in matrix
    ]
    return torch.stack(rows, axis)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Exposure(Photometric):
    """`u -> factor * u`: more or less light. Exposures compose: their factors multiply.

    Args:
        factor: above 0; below 1 is darker.

    ```python
    import torch

    import equivae

    x = torch.rand(1, 3, 8, 8) * 2 - 1
    twice = equivae.get_transform("exposure", factor=0.5) @ equivae.get_transform("exposure", factor=0.6)
    once = equivae.get_transform("exposure", factor=0.3)
    assert torch.allclose(twice.pixel(x), once.pixel(x), atol=1e-6)
    ```
    """

    factor: float = 0.6
    registered_name = "exposure"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("factor")

    def change(self, u: Tensor) -> Tensor:
        return u * self.factor

    @property
    def inverse(self) -> Exposure:
        return Exposure(factor=1 / self.factor)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Brightness(Photometric):
    """`u -> u + by`.

    Args:
        by: negative is darker.
    """

    by: float = -0.1
    registered_name = "brightness"

    def change(self, u: Tensor) -> Tensor:
        return u + self.by

    @property
    def inverse(self) -> Brightness:
        return Brightness(by=-self.by)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Contrast(Photometric):
    """`u -> 1/2 + factor * (u - 1/2)`.

    Args:
        factor: above 0; below 1 is flatter.
    """

    factor: float = 0.7
    registered_name = "contrast"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("factor")

    def change(self, u: Tensor) -> Tensor:
        return 0.5 + (u - 0.5) * self.factor

    @property
    def inverse(self) -> Contrast:
        return Contrast(factor=1 / self.factor)


def _saturating(factor: float) -> list[list[float]]:
    """The matrix that moves colours towards their luma, or away from it."""
    return [
        [(1 - factor) * weight + factor * (row == column) for column, weight in enumerate(_LUMA)]
        for row in range(3)
    ]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Saturation(Photometric):
    """Colours nearer to their grey, or farther from it.

    Args:
        factor: above 0; below 1 is paler.
    """

    factor: float = 0.5
    registered_name = "saturation"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("factor")

    def change(self, u: Tensor) -> Tensor:
        return _mix(u, _saturating(self.factor), self.name)

    @property
    def inverse(self) -> Saturation:
        return Saturation(factor=1 / self.factor)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Greyscale(Photometric):
    """Every colour as its luma (ITU-R BT.601). It has no inverse."""

    registered_name = "greyscale"

    def change(self, u: Tensor) -> Tensor:
        return _mix(u, _saturating(0.0), self.name)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Hue(Photometric):
    """Colours turned about the grey axis of the cube of colours.

    Args:
        degrees: 120 takes red to green, green to blue and blue to red.
    """

    degrees: float = 30.0
    registered_name = "hue"

    def change(self, u: Tensor) -> Tensor:
        angle = math.radians(self.degrees)
        turn, third = math.cos(angle), (1 - math.cos(angle)) / 3
        side = math.sin(angle) / math.sqrt(3)
        own, back, forth = turn + third, third - side, third + side
        matrix = [[own, back, forth], [forth, own, back], [back, forth, own]]
        return _mix(u, matrix, self.name)

    @property
    def inverse(self) -> Hue:
        return Hue(degrees=-self.degrees)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Gamma(Photometric):
    """`u -> u ** power`, with the sign kept of what lies below 0.

    Args:
        power: above 0; above 1 darkens the middle.
    """

    power: float = 1.5
    registered_name = "gamma"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("power")

    def change(self, u: Tensor) -> Tensor:
        # The slope of a root is infinite at 0, and a gradient has to be finite.
        return u.sign() * u.abs().clamp_min(1e-6) ** self.power

    @property
    def inverse(self) -> Gamma:
        return Gamma(power=1 / self.power)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ColourNegative(Photometric):
    """`u -> 1 - u`, its own inverse."""

    registered_name = "colour_negative"

    def change(self, u: Tensor) -> Tensor:
        return 1 - u

    @property
    def inverse(self) -> ColourNegative:
        return self


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class WhiteBalance(Photometric):
    """A gain for every colour.

    Args:
        red: above 0.
        green: above 0.
        blue: above 0.
    """

    red: float = 1.0
    green: float = 0.9
    blue: float = 0.75
    registered_name = "white_balance"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("red", "green", "blue")

    def change(self, u: Tensor) -> Tensor:
        gains = [self.red, self.green, self.blue]
        matrix = [[gain * (row == column) for column in range(3)] for row, gain in enumerate(gains)]
        return _mix(u, matrix, self.name)

    @property
    def inverse(self) -> WhiteBalance:
        return WhiteBalance(red=1 / self.red, green=1 / self.green, blue=1 / self.blue)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Blur(Photometric):
    """A Gaussian blur, the border repeated. It has no inverse.

    Args:
        sigma: in pixels, above 0.
    """

    sigma: float = 1.5
    registered_name = "blur"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("sigma")

    def change(self, u: Tensor) -> Tensor:
        return _blurred(u, self.sigma)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Sharpen(Photometric):
    """Unsharp masking, `u -> u + amount * (u - blur(u))`. It has no inverse.

    Args:
        amount: how much of the detail is added.
        sigma: of the blur, in pixels, above 0.
    """

    amount: float = 0.5
    sigma: float = 1.0
    registered_name = "sharpen"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("sigma")

    def change(self, u: Tensor) -> Tensor:
        return u + self.amount * (u - _blurred(u, self.sigma))


def _blurred(u: Tensor, sigma: float) -> Tensor:
    """Half precision is computed in float32."""
    values = u.float() if u.dtype in (torch.float16, torch.bfloat16) else u
    reach = max(1, math.ceil(3 * sigma))
    steps = torch.arange(-reach, reach + 1, dtype=values.dtype, device=u.device)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    planes = values.reshape(-1, 1, *u.shape[-2:])
    planes = F.pad(planes, [reach] * 4, mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return planes.reshape(u.shape).to(u.dtype)
