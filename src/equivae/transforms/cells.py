"""Whole-cell moves: cropping and cyclic shifts. Exact, because no latent cell is cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

from torch import Tensor

from equivae.errors import InputError
from equivae.transforms.checks import check_between, is_number, is_whole
from equivae.transforms.placing import CellTransform
from equivae.transforms.spelling import spell
from equivae.units import window_span

__all__ = ["Crop", "Pair", "Shift", "check_window", "pair", "whole_cells"]

Pair = Union[float, tuple[float, float]]


def pair(value: Pair, what: str) -> tuple[float, float]:
    """`(y, x)` from one number for both axes or from two."""
    both = value if isinstance(value, (tuple, list)) else (value, value)
    if len(both) == 2 and all(is_number(one) for one in both):
        return float(both[0]), float(both[1])
    raise InputError(f"{what} must be a number, or a pair (y, x), got {value!r}.")


def whole_cells(side: int, cell: int) -> int:
    """How many cells a side has; `InputError` unless it is a whole number."""
    if side % cell:
        raise InputError(
            f"a side of {side} pixels is not a whole number of latent cells of {cell} pixels; crop the "
            "image to whole cells."
        )
    return side // cell


def check_window(size: Pair, y: float, x: float) -> None:
    """`InputError` unless `size` is a share of the sides and `y` and `x` are places along them."""
    if not all(0 < share <= 1 for share in pair(size, "size")):
        raise InputError(f"size must lie in (0, 1], a share of the side, got {size}.")
    for what, place in (("y", y), ("x", x)):
        check_between(what, place, 0, 1)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Crop(CellTransform):
    """A window of whole latent cells.

    Args:
        size: its share of the height and width, in (0, 1], or a pair (y, x); rounded to whole cells.
        y: where it lies vertically: 0 at the top, 0.5 in the middle, 1 at the bottom.
        x: where it lies horizontally, 0 at the left.
        cell: pixels per latent cell, the VAE's factor, which the pixel op needs; see `Transform.at_factor`.

    ```python
    import torch

    import equivae

    t = equivae.get_transform("crop", size=0.5, y=0.0, x=1.0, cell=8)
    assert t.pixel(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 32, 32)
    assert t.latent(torch.zeros(1, 4, 8, 8)).shape == (1, 4, 4, 4)
    ```
    """

    size: Pair = 0.5
    y: float = 0.5
    x: float = 0.5
    layouts = ("image", "video")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.size, self.y, self.x)

    @property
    def name(self) -> str:  # type: ignore[override]
        return spell("crop", size=self.size, y=self.y, x=self.x)

    def _window(self, tensor: Tensor, cell: int) -> Tensor:
        share, place = pair(self.size, "size"), (self.y, self.x)
        for axis in (-2, -1):
            cells = whole_cells(tensor.shape[axis], cell)
            start, kept = window_span(cells, share[axis], place[axis])
            tensor = tensor.narrow(axis, start * cell, kept * cell)
        return tensor

    def pixel(self, x: Tensor) -> Tensor:
        return self._window(x, self.pixels_per_cell)

    def latent(self, z: Tensor) -> Tensor:
        return self._window(z, 1)

    def carry_mask(self, x: Tensor, valid: Tensor) -> Tensor:
        return self.pixel(valid)

    def _does(self) -> Mapping[str, Any]:
        return {**super()._does(), "size": pair(self.size, "size")}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Shift(CellTransform):
    """A cyclic shift by whole latent cells: what leaves on one side enters on the other.

    Args:
        y: cells downwards; negative is upwards.
        x: cells to the right.
        cell: pixels per latent cell, the VAE's factor, which the pixel op needs; see `Transform.at_factor`.

    ```python
    import torch

    import equivae

    t = equivae.get_transform("shift", y=1, x=-2, cell=8)
    x = torch.rand(1, 3, 32, 32)
    assert t.pixel(x).equal(x.roll((8, -16), (-2, -1)))
    assert t.inverse.pixel(t.pixel(x)).equal(x)
    ```
    """

    y: int = 1
    x: int = 1
    layouts = ("image", "video")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_whole(self.y) and is_whole(self.x)):
            raise InputError(
                f"shift moves by whole cells, got y={self.y}, x={self.x}; for parts of a cell use "
                "fractional_shift or translate."
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        return spell("shift", y=self.y, x=self.x)

    def _move(self, tensor: Tensor, cell: int) -> Tensor:
        moved = [(int(by) * cell, axis) for by, axis in ((self.y, -2), (self.x, -1)) if by]
        return tensor.roll(*zip(*moved, strict=True)) if moved else tensor

    def pixel(self, x: Tensor) -> Tensor:
        return self._move(x, self.pixels_per_cell)

    def latent(self, z: Tensor) -> Tensor:
        return self._move(z, 1)

    def carry_mask(self, x: Tensor, valid: Tensor) -> Tensor:
        return self.pixel(valid)

    @property
    def inverse(self) -> Shift:
        return dataclasses.replace(self, y=-self.y, x=-self.x)
