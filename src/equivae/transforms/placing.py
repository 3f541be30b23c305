"""Transforms that count in latent cells, and so have to be placed on a VAE's geometry, once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from equivae.errors import InputError, UnplacedError
from equivae.transforms.base import Transform
from equivae.transforms.checks import check_fields, is_whole

__all__ = ["CellTransform"]

Self = TypeVar("Self", bound="CellTransform")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class CellTransform(Transform):
    """A transform of which an op, the mask or the draw has to know how many pixels a latent cell spans.

    Args:
        cell: pixels per latent cell, the VAE's factor; `None` until the transform is placed. What needs
            it then raises `InputError`.

    For a transform of one's own: the ops ask for `pixels_per_cell`, and `at_factor` is there.

    ```python
    import torch

    import equivae


    class HalfCell(equivae.transforms.CellTransform):
        name = "half_cell"
        exact = False

        def pixel(self, x):
            return x.roll(self.pixels_per_cell // 2, -1)

        def latent(self, z):
            return (z + z.roll(1, -1)) / 2


    x = torch.rand(1, 3, 64, 64)
    assert HalfCell().at_factor(16).pixel(x).equal(x.roll(8, -1))
    ```
    """

    cell: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.cell is not None and not (is_whole(self.cell) and self.cell >= 1):
            raise InputError(
                f"cell must be a whole number of pixels per latent cell, at least 1, got {self.cell!r}."
            )

    def at_factor(self: Self, factor: int, time_factor: int | None = None) -> Self:
        cell = self._own_factor(factor, time_factor)
        if cell is None or cell == self.cell:
            return self
        if self.cell is not None:
            raise InputError(
                f"transform {self.name!r} is placed at {self.cell} pixels per latent cell already, and "
                f"here a cell spans {cell}; pass it without `cell`, as in "
                f"equivae.get_transform({self.name!r}), which losses and metrics place by themselves."
            )
        return dataclasses.replace(self, cell=cell)

    def _own_factor(self, factor: int, time_factor: int | None) -> int | None:
        """Which of a VAE's factors counts."""
        return factor

    @property
    def pixels_per_cell(self) -> int:
        """`cell`; `InputError` before the transform is placed."""
        if self.cell is None:
            raise UnplacedError(
                f"transform {self.name!r} counts in latent cells, and was not told how many pixels one "
                "spans; place it on your VAE with equivae.Autoencoder(vae).place(t), or say its factor, "
                "as in t.at_factor(8) or `cell=8`."
            )
        return self.cell
