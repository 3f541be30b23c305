"""Random families: transforms whose parameters are drawn, per call or per sample."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Union

import torch
from torch import Tensor

from equivae.errors import InputError
from equivae.transforms.base import Transform
from equivae.transforms.cells import Crop, Shift
from equivae.transforms.resampled import (
    Affine,
    FractionalShift,
    Parameter,
    Perspective,
    Rotate,
    Scale,
    Translate,
    Zoom,
)
from equivae.transforms.spelling import spell
from equivae.transforms.warp import Interpolation, PaddingMode

__all__ = [
    "Blend",
    "PerSample",
    "RandomAffine",
    "RandomBlend",
    "RandomCrop",
    "RandomFractionalShift",
    "RandomPerspective",
    "RandomRotate",
    "RandomScale",
    "RandomShift",
    "RandomTransform",
    "RandomTranslate",
    "RandomZoom",
    "Sampler",
]

Range = Union[float, tuple[float, float]]
_PLACES = (0.0, 1.0)


class Sampler:
    """Draws parameters for one call: one value, or one per sample."""

    def __init__(
        self, batch_size: int, generator: torch.Generator | None, same_on_batch: bool
    ) -> None:
        self.count = 1 if same_on_batch else batch_size
        self.generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """`(B, *shape)` values, float64, uniform between the two."""
        unit = torch.rand(self.count, *shape, generator=self.generator, dtype=torch.float64)
        return low + (high - low) * unit

    def pick(self, values: Sequence[Any]) -> list[Any]:
        """`B` of the values, each as likely as the others."""
        places = torch.randint(len(values), (self.count,), generator=self.generator)
        return [values[place] for place in places.tolist()]


class RandomTransform(Transform):
    """A transform that has parameters only once they are drawn: `draw` gives the fixed one.

    The losses and metrics draw; by hand it is `t.draw(batch_size, generator)`. Its own ops raise
    `InputError`, because pixels and latent would have to guess the same parameters.
    """

    layouts: tuple[str, ...] = ("image", "video")

    @abstractmethod
    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform: ...

    def pixel(self, x: Tensor) -> Tensor:
        raise self._undrawn()

    def latent(self, z: Tensor) -> Tensor:
        raise self._undrawn()

    def mask(self, x: Tensor) -> Tensor | None:
        raise self._undrawn()

    def _undrawn(self) -> InputError:
        return InputError(
            f"transform {self.name!r} is random: draw its parameters first, with "
            "t.draw(batch_size, generator), and apply what that returns."
        )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class _Family(RandomTransform):
    """A random transform whose options are dataclass fields; the name shows those that were changed."""

    registered_name = ""

    @property
    def name(self) -> str:  # type: ignore[override]
        fields = [f for f in dataclasses.fields(self) if f.name != "cell"]
        values = {f.name: getattr(self, f.name) for f in fields}
        return spell(
            self.registered_name,
            **{f.name: values[f.name] for f in fields if values[f.name] != f.default},
        )

    def at_factor(self, factor: int, time_factor: int | None = None) -> Transform:
        known = any(field.name == "cell" for field in dataclasses.fields(self))
        return dataclasses.replace(self, **{"cell": factor} if known else {})


class PerSample(Transform):
    """Different transforms for different samples of a batch. All have to give the same size.

    Args:
        parts: transforms, each with the rows of the batch that it takes; together all rows, once.
        name: of the whole.
    """

    def __init__(self, parts: Sequence[tuple[Transform, Sequence[int]]], name: str) -> None:
        self.parts = [(transform, list(rows)) for transform, rows in parts if len(rows)]
        self.name = name
        members = [transform for transform, _ in self.parts]
        self.exact = all(t.exact for t in members)
        self.swaps_axes = any(t.swaps_axes for t in members)
        self.mixes_samples = any(t.mixes_samples for t in members)
        self.layouts = tuple(
            k for k in members[0].layouts if all(k in other.layouts for other in members)
        )
        self._order = [row for _, rows in self.parts for row in rows]

    def pixel(self, x: Tensor) -> Tensor:
        return self._each(x, lambda transform, rows: transform.pixel(x[rows]))

    def latent(self, z: Tensor) -> Tensor:
        return self._each(z, lambda transform, rows: transform.latent(z[rows]))

    @property
    def inverse(self) -> Transform:
        parts = [(transform.inverse, rows) for transform, rows in self.parts]
        return PerSample(parts, f"inverse({self.name})")

    def mask(self, x: Tensor) -> Tensor | None:
        if all(transform.mask(x[rows]) is None for transform, rows in self.parts):
            return None

        def one(transform: Transform, rows: list[int]) -> Tensor:
            mask = transform.mask(x[rows])
            size = transform.pixel(x[rows]).shape[-2:]
            if mask is None:
                mask = torch.ones(size, dtype=torch.bool, device=x.device)
            return mask.expand(len(rows), 1, *size)

        return self._each(x, one)

    def carry_mask(self, x: Tensor, valid: Tensor) -> Tensor:
        valid = valid.expand(x.shape[0], 1, *x.shape[-2:])

        def one(transform: Transform, rows: list[int]) -> Tensor:
            carried = transform.carry_mask(x[rows], valid[rows])
            return carried.expand(len(rows), 1, *carried.shape[-2:])

        return self._each(x, one)

    def at_factor(self, factor: int, time_factor: int | None = None) -> Transform:
        parts = [(t.at_factor(factor, time_factor), rows) for t, rows in self.parts]
        return PerSample(parts, self.name)

    def _each(self, batch: Tensor, op: Callable[[Transform, list[int]], Tensor]) -> Tensor:
        if batch.shape[0] != len(self._order):
            raise InputError(
                f"transform {self.name!r} was drawn for {len(self._order)} samples, got "
                f"{batch.shape[0]}; draw after selecting the samples."
            )
        results = [op(transform, rows) for transform, rows in self.parts]
        if len({result.shape[1:] for result in results}) > 1:
            sizes = sorted({tuple(result.shape[-2:]) for result in results})
            raise InputError(
                f"transform {self.name!r} gives samples of different sizes {sizes}; use "
                "same_on_batch=True, or square images for quarter turns."
            )
        inverse = sorted(range(len(self._order)), key=self._order.__getitem__)
        return torch.cat(results)[inverse]


def _between(limit: Range, what: str) -> tuple[float, float]:
    """`(low, high)` of a range, or `(-limit, limit)` of one number, as in kornia."""
    if isinstance(limit, (int, float)):
        return -abs(float(limit)), abs(float(limit))
    if isinstance(limit, (tuple, list)) and len(limit) == 2 and limit[0] <= limit[1]:
        return float(limit[0]), float(limit[1])
    raise InputError(f"{what} must be a number or a range (low, high), got {limit!r}.")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class _RandomWarp(_Family):
    """Options that the drawn warps share.

    Args:
        same_on_batch: one draw for the whole batch instead of one per sample.
        interpolation, padding_mode, antialias, cell: see `Warp`.
    """

    same_on_batch: bool = False
    interpolation: Interpolation = "bilinear"
    padding_mode: PaddingMode = "zeros"
    antialias: bool = True
    cell: int = 8
    exact = False

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
    """

    factors: tuple[float, ...] | None = None
    between: tuple[float, float] = (1.0, 2.0)
    centred: bool = False
    registered_name = "random_zoom"

    def _warp(self, sampler: Sampler) -> Transform:
        if self.factors is None:
            factor = sampler.uniform(*self.between)
        else:
            factor = torch.tensor(sampler.pick(self.factors), dtype=torch.float64)
        place: list[Parameter] = [0.5, 0.5]
        if not self.centred:
            place = [sampler.uniform(*_PLACES), sampler.uniform(*_PLACES)]
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
class RandomPerspective(_RandomWarp):
    """Every corner moves inwards by a drawn amount.

    Args:
        distortion_scale: 0 to 1; at 1 a corner may reach the centre, as in torchvision and kornia.
    """

    distortion_scale: float = 0.5
    registered_name = "random_perspective"

    def _warp(self, sampler: Sampler) -> Transform:
        inwards = torch.tensor([[1, 1], [1, -1], [-1, -1], [-1, 1]], dtype=torch.float64)
        amount = sampler.uniform(0.0, 0.5 * self.distortion_scale, 4, 2)
        return Perspective(corners=amount * inwards, **self._options)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomScale(_Family):
    """EQ-VAE's scaling: `s / 32` with `s` drawn from 8 to 31, the same for the whole batch, since it
    decides the size.

    Args:
        factors: the values that the factor may have; without them EQ-VAE's.
        anisotropic: draw the factors of height and width apart.
        interpolation, antialias, cell: see `Scale`. EQ-VAE's code does not filter: `antialias=False`.
    """

    factors: tuple[float, ...] | None = None
    anisotropic: bool = False
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    cell: int = 8
    exact = False
    registered_name = "random_scale"

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        sampler = Sampler(batch_size, generator, same_on_batch=True)
        factors = self.factors or [s / 32 for s in range(8, 32)]
        y = sampler.pick(factors)[0]
        x = sampler.pick(factors)[0] if self.anisotropic else y
        return Scale(
            factor=y if x == y else (y, x),
            interpolation=self.interpolation,
            antialias=self.antialias,
            cell=self.cell,
        )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomCrop(_Family):
    """A window of whole cells: the size is drawn for the batch, the place for every sample.

    Args:
        sizes: the shares of the side that it may have; these are HakuLatent's.
        same_on_batch: one place for the whole batch.
        cell: pixels per latent cell, the VAE's factor.
    """

    sizes: tuple[float, ...] = (0.25, 0.5, 0.75)
    same_on_batch: bool = False
    cell: int = 8
    registered_name = "random_crop"

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        size = Sampler(batch_size, generator, same_on_batch=True).pick(self.sizes)[0]
        sampler = Sampler(batch_size, generator, self.same_on_batch)
        places = zip(sampler.uniform(0, 1).tolist(), sampler.uniform(0, 1).tolist(), strict=True)
        members = [Crop(size=size, y=y, x=x, cell=self.cell) for y, x in places]
        return _by_sample(members, self.name)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomShift(_Family):
    """A cyclic shift by whole cells.

    Args:
        cells: at most so many cells along either axis.
        same_on_batch: one shift for the whole batch.
        cell: pixels per latent cell, the VAE's factor.
    """

    cells: int = 4
    same_on_batch: bool = False
    cell: int = 8
    registered_name = "random_shift"

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        sampler = Sampler(batch_size, generator, self.same_on_batch)
        steps = range(-self.cells, self.cells + 1)
        places = zip(sampler.pick(steps), sampler.pick(steps), strict=True)
        return _by_sample([Shift(y=y, x=x, cell=self.cell) for y, x in places], self.name)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomFractionalShift(_Family):
    """AF-LDM's shift: by whole pixels, so by any number of parts of a latent cell, ideal interpolation,
    with a mask (arXiv 2503.09419).

    Args:
        cells: at most so many latent cells along either axis.
        cyclic: whether what enters on the other side counts.
        same_on_batch: one shift for the whole batch.
        cell: pixels per latent cell, the VAE's factor.
    """

    cells: float = 2.0
    cyclic: bool = False
    same_on_batch: bool = True
    cell: int = 8
    exact = False
    registered_name = "random_fractional_shift"

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        sampler = Sampler(batch_size, generator, self.same_on_batch)
        most = int(self.cells * self.cell)
        steps = [pixels / self.cell for pixels in range(-most, most + 1)]
        places = zip(sampler.pick(steps), sampler.pick(steps), strict=True)
        members = [FractionalShift(y=y, x=x, cyclic=self.cyclic, cell=self.cell) for y, x in places]
        return _by_sample(members, self.name)


def _by_sample(members: Sequence[Transform], name: str) -> Transform:
    if len(members) == 1:
        return members[0]
    return PerSample([(member, [row]) for row, member in enumerate(members)], name)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Blend(Transform):
    """HakuLatent's blending: every sample is mixed with another, with the same weight in both spaces,
    `T(x)_i = w x_i + (1 - w) x_j`. No move at all: it asks for a latent space that is linear.

    Args:
        weight: `w`, or one per sample.
        partner: `j` for every `i`; without it the sample before.
    """

    weight: Parameter = 0.5
    partner: Tensor | None = None
    mixes_samples = True
    layouts = ("image", "video", "audio")

    @property
    def name(self) -> str:  # type: ignore[override]
        return spell("blend", weight=self.weight)

    def _mix(self, batch: Tensor) -> Tensor:
        weight = torch.as_tensor(self.weight, dtype=batch.dtype, device=batch.device)
        if weight.ndim and weight.shape[0] not in (1, batch.shape[0]):
            raise InputError(
                f"transform {self.name!r} was drawn for {weight.shape[0]} samples, got "
                f"{batch.shape[0]}; draw after selecting the samples."
            )
        weight = weight.reshape(-1, *[1] * (batch.ndim - 1))
        other = batch.roll(1, 0) if self.partner is None else batch[self.partner.to(batch.device)]
        return weight * batch + (1 - weight) * other

    def pixel(self, x: Tensor) -> Tensor:
        return self._mix(x)

    def latent(self, z: Tensor) -> Tensor:
        return self._mix(z)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomBlend(_Family):
    """Blending with a drawn partner and weight.

    Args:
        weight: the range of the weight of a sample itself.
        same_on_batch: one weight for the whole batch.
    """

    weight: tuple[float, float] = (0.5, 1.0)
    same_on_batch: bool = False
    mixes_samples = True
    layouts = ("image", "video", "audio")
    registered_name = "random_blend"

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        partner = torch.randperm(batch_size, generator=generator)
        weight = Sampler(batch_size, generator, self.same_on_batch).uniform(*self.weight)
        return Blend(weight=weight, partner=partner)
