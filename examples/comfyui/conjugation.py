"""A latent op that keeps the law of its group exactly: a plain move seen through an invertible network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .kernel import convolve
from .moves import Lattice

__all__ = ["Conjugation", "Coupling"]


@dataclass(frozen=True)
class Coupling:
    """What one half of the coordinates adds to the other.

    Attributes:
        linear: `(c_out, c_in + 1, *kernel)`, over the half and a channel of ones.
        first: weight and bias of a layer over the same.
        last: those of the layer after its GELU.
    """

    linear: Tensor
    first: tuple[Tensor, Tensor]
    last: tuple[Tensor, Tensor]

    def __call__(self, half: Tensor) -> Tensor:
        given = torch.cat([half, torch.ones_like(half[:, :1])], 1)
        inner = F.gelu(convolve(given, *self.first, "zeros"))
        nothing = torch.zeros(len(self.linear))
        return convolve(given, self.linear, nothing, "zeros") + convolve(inner, *self.last, "zeros")


@dataclass(frozen=True)
class Conjugation:
    """Into coordinates where the move is plain, the move, and back.

    Attributes:
        origin: `(c,)`, what every move leaves where it is.
        bases: changes of basis `(c, c)`, two couplings after each but the last.
        couplings: every other one adds to the other half.
        lattice: the move of the grid.
        order: the coordinate that each one is taken from.
        signs: +1 or -1 for each.
    """

    origin: Tensor
    bases: tuple[Tensor, ...]
    couplings: tuple[Coupling, ...]
    lattice: Lattice
    order: tuple[int, ...]
    signs: tuple[int, ...]
    moves_grid = True

    @classmethod
    def of(cls, key: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> Conjugation:
        """From the part of a file that lies under `key`. `ValueError` if something of it is missing."""
        try:
            couplings = tuple(
                Coupling(
                    tensors[f"{part}.linear.weight"],
                    (tensors[f"{part}.first.weight"], tensors[f"{part}.first.bias"]),
                    (tensors[f"{part}.last.weight"], tensors[f"{part}.last.bias"]),
                )
                for part in (f"{key}.map.couplings.{i}" for i in range(config["couplings"]))
            )
            bases = (tensors[f"{key}.map.bases.{i}"] for i in range(len(couplings) // 2 + 1))
            return cls(
                tensors[f"{key}.map.origin"],
                tuple(bases),
                couplings,
                Lattice(**config["move"]),
                tuple(config["order"]),
                tuple(config["signs"]),
            )
        except KeyError as error:
            raise ValueError(
                f"The latent op's weights do not fit its description: {error} is missing."
            ) from error

    @property
    def channels(self) -> int:
        """Of what it takes and gives."""
        return len(self.origin)

    @property
    def axes(self) -> int:
        """Of the grid: two for images, three for video."""
        return self.couplings[0].linear.ndim - 2

    @property
    def inverse(self) -> Conjugation:
        """What undoes it."""
        order = sorted(range(len(self.order)), key=self.order.__getitem__)
        signs = tuple(self.signs[i] for i in order)
        return replace(self, lattice=self.lattice.inverse, order=tuple(order), signs=signs)

    def __call__(self, cells: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * self.axes
        signs = torch.tensor(self.signs, dtype=cells.dtype, device=cells.device).view(shape)
        origin = self.origin.to(cells).view(shape)
        inside = self._through(cells - origin)
        return self._back(self.lattice(inside[:, list(self.order)] * signs)) + origin

    def _through(self, cells: Tensor) -> Tensor:
        for i, basis in enumerate(self.bases):
            cells = _mixed(basis.to(cells), cells)
            for j in range(2 * i, min(2 * i + 2, len(self.couplings))):
                cells = self._coupled(cells, j, 1)
        return cells

    def _back(self, cells: Tensor) -> Tensor:
        for i, basis in reversed(list(enumerate(self.bases))):
            for j in reversed(range(2 * i, min(2 * i + 2, len(self.couplings)))):
                cells = self._coupled(cells, j, -1)
            cells = _mixed(torch.linalg.inv(basis.to(cells)), cells)
        return cells

    def _coupled(self, cells: Tensor, j: int, sign: int) -> Tensor:
        first = (self.channels + 1) // 2
        halves = [cells[:, :first], cells[:, first:]]
        halves[1 - j % 2] = halves[1 - j % 2] + sign * self.couplings[j](halves[j % 2])
        return torch.cat(halves, 1)


def _mixed(matrix: Tensor, cells: Tensor) -> Tensor:
    return torch.einsum("ij,bj...->bi...", matrix, cells)
