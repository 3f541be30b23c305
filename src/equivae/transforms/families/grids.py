"""Random transforms that count in latent cells: scaling, cropping, shifts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from equivae.errors import InputError
from equivae.transforms.base import Transform
from equivae.transforms.cells import Crop, Shift
from equivae.transforms.checks import check_between, check_choices, is_whole
from equivae.transforms.families.drawing import Family, Places, Sampler
from equivae.transforms.families.per_sample import by_sample
from equivae.transforms.placing import CellTransform
from equivae.transforms.resampled.fractional import FractionalShift
from equivae.transforms.resampled.scale import Scale
from equivae.transforms.warp import Interpolation, check_option

__all__ = ["RandomCrop", "RandomFractionalShift", "RandomScale", "RandomShift"]

_MOST_CELLS = 2**16


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomScale(Family, CellTransform):
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
    exact = False
    registered_name = "random_scale"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("interpolation", self.interpolation, Interpolation)
        if self.factors is not None:
            check_choices("factors", self.factors, 1e-6)

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        sampler = Sampler(batch_size, generator, same_on_batch=True)
        y = sampler.pick(self._factors)[0]
        x = sampler.pick(self._factors)[0] if self.anisotropic else y
        return self._scale(y, x)

    def scales(self) -> list[Scale]:
        """Every scaling that it draws from, where height and width are drawn as one."""
        return [self._scale(factor, factor) for factor in self._factors]

    @property
    def _factors(self) -> Sequence[float]:
        return self.factors or [s / 32 for s in range(8, 32)]

    def _scale(self, y: float, x: float) -> Scale:
        return Scale(
            factor=y if x == y else (y, x),
            interpolation=self.interpolation,
            antialias=self.antialias,
            cell=self.cell,
        )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomCrop(Family, CellTransform):
    """A window of whole cells: the size is drawn for the batch, the place for every sample.

    Args:
        sizes: the shares of the side that it may have; these are HakuLatent's.
        same_on_batch: one place for the whole batch.
        places: `"any"`, or `"five"`: the corners and the centre, as HakuLatent has them.
        cell: pixels per latent cell, the VAE's factor.
    """

    sizes: tuple[float, ...] = (0.25, 0.5, 0.75)
    same_on_batch: bool = False
    places: Places = "any"
    registered_name = "random_crop"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices("sizes", self.sizes, 1e-6, 1)
        check_option("places", self.places, Places)

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        size = Sampler(batch_size, generator, same_on_batch=True).pick(self.sizes)[0]
        sampler = Sampler(batch_size, generator, self.same_on_batch)
        ys, xs = (one.tolist() for one in sampler.place(self.places))
        places = zip(ys, xs, strict=True)
        members = [Crop(size=size, y=y, x=x, cell=self.cell) for y, x in places]
        return by_sample(members, self.name)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomShift(Family, CellTransform):
    """A cyclic shift by whole cells.

    Args:
        cells: at most so many cells along either axis.
        same_on_batch: one shift for the whole batch.
        cell: pixels per latent cell, the VAE's factor.
    """

    cells: int = 4
    same_on_batch: bool = False
    registered_name = "random_shift"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.cells):
            raise InputError(f"random_shift moves by whole cells, got cells={self.cells!r}.")
        check_between("cells", self.cells, 0, _MOST_CELLS)

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        sampler = Sampler(batch_size, generator, self.same_on_batch)
        steps = range(-int(self.cells), int(self.cells) + 1)
        places = zip(sampler.pick(steps), sampler.pick(steps), strict=True)
        return by_sample([Shift(y=y, x=x, cell=self.cell) for y, x in places], self.name)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomFractionalShift(Family, CellTransform):
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
    exact = False
    registered_name = "random_fractional_shift"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between("cells", self.cells, 0, _MOST_CELLS)

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        sampler = Sampler(batch_size, generator, self.same_on_batch)
        cell = self.pixels_per_cell
        most = int(self.cells * cell)
        steps = [pixels / cell for pixels in range(-most, most + 1)]
        places = zip(sampler.pick(steps), sampler.pick(steps), strict=True)
        members = [FractionalShift(y=y, x=x, cyclic=self.cyclic, cell=cell) for y, x in places]
        return by_sample(members, self.name)
