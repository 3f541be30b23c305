"""Different transforms for different samples of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from equivae.errors import InputError
from equivae.transforms.base import Transform

__all__ = ["PerSample", "by_sample"]


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
        self.block = math.lcm(*(t.block for t in members))
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
        placed = all(new is old for (new, _), (old, _) in zip(parts, self.parts, strict=True))
        return self if placed else PerSample(parts, self.name)

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


def by_sample(members: Sequence[Transform], name: str) -> Transform:
    if len(members) == 1:
        return members[0]
    return PerSample([(member, [row]) for row, member in enumerate(members)], name)
