"""The cosine basis, and the transform that leaves the coarse cosine waves of blocks: DSM's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from equivae.errors import InputError
from equivae.transforms.base import Transform
from equivae.transforms.checks import check_between, check_fields, is_whole
from equivae.transforms.spelling import spell

__all__ = ["CosineCut", "dct_basis"]

_BLOCK = 8


def dct_basis(size: int, *, device: torch.device | None = None) -> Tensor:
    """The orthonormal DCT-II of `size` values, `(size, size)` in float64; a row is a frequency."""
    index = torch.arange(size, dtype=torch.float64, device=device)
    basis = torch.cos(math.pi / size * (index + 0.5) * index[:, None]) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class CosineCut(Transform):
    r"""The coarse part of every block: of the 8x8 cosine coefficients `(u, v)` of image and latent those with
    `u + v \ge 15 - k` are set to zero. That is DSM's filter (Spectrum Matching, arXiv 2603.14645).

    Args:
        k: how many diagonals go, from the finest on: 0 leaves all, 14 the mean alone.

    There is no inverse. Raises `InputError` for sides that are no multiples of 8, in pixels or in cells.
    """

    k: int = 8
    exact = False
    block = _BLOCK

    def __post_init__(self) -> None:
        check_fields(self)
        if not is_whole(self.k):
            raise InputError(f"k must be a whole number of diagonals, got {self.k!r}.")
        check_between("k", self.k, 0, 2 * _BLOCK - 2)

    @property
    def name(self) -> str:  # type: ignore[override]
        return spell("cosine_cut", k=self.k)

    def pixel(self, x: Tensor) -> Tensor:
        return self._cut(x)

    def latent(self, z: Tensor) -> Tensor:
        return self._cut(z)

    def _cut(self, grid: Tensor) -> Tensor:
        height, width = grid.shape[-2:]
        if height % _BLOCK or width % _BLOCK:
            raise InputError(
                f"transform {self.name!r} works on blocks of 8x8, and {height}x{width} is not a whole number "
                "of them; choose a resolution that is a multiple of 8 cells of the latent."
            )
        precision = torch.promote_types(grid.dtype, torch.float32)
        index = torch.arange(_BLOCK, device=grid.device)
        kept = (index[:, None] + index < 2 * _BLOCK - 1 - self.k).to(precision)
        basis = dct_basis(_BLOCK, device=grid.device).to(precision)
        shape = (*grid.shape[:-2], height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
        blocks = grid.to(precision).reshape(shape).transpose(-3, -2)
        cut = basis.T @ ((basis @ blocks @ basis.T) * kept) @ basis
        return cut.transpose(-3, -2).reshape(grid.shape).to(grid.dtype)
