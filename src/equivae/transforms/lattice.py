"""Lattice transforms: the eight symmetries of the square, exact and invertible on both grids."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from equivae.transforms.base import Transform

__all__ = ["LATTICE", "LatticeTransform"]


@dataclass(frozen=True, repr=False, eq=False)
class LatticeTransform(Transform):
    r"""An element of the dihedral group `D4`, acting alike on the pixel grid and on the latent grid.

    Every element is a transposition (or none) followed by flips (or none): with `τ` the exchange of
    the last two axes and `φ` a flip, `T = ρ = φ_h^a φ_w^b τ^c`. Composition and inverse stay inside
    the group, so that `get_transform("rot90") @ get_transform("rot90") == get_transform("rot180")`.

    Args:
        name: its name in the registry.
        transposes: `c`, whether the last two axes are exchanged first.
        flips_height: `a`, whether the vertical axis is reversed.
        flips_width: `b`, whether the horizontal axis is reversed.

    Both ops take `(..., H, W)` of any dtype and rank of at least 2, and return `(..., W, H)` if the
    axes are exchanged, else `(..., H, W)`. Rotations are counter-clockwise, as in `torch.rot90`.

    ```python
    import torch

    import equivae

    t = equivae.get_transform("rot90")
    z = torch.randn(2, 4, 32, 24)
    assert t.latent(z).shape == (2, 4, 24, 32)
    assert t.inverse.latent(t.latent(z)).equal(z)
    ```
    """

    name: str
    transposes: bool = False
    flips_height: bool = False
    flips_width: bool = False
    layouts = ("image", "video")

    @property
    def swaps_axes(self) -> bool:  # type: ignore[override]
        return self.transposes

    def _move(self, tensor: Tensor) -> Tensor:
        if self.transposes:
            tensor = tensor.transpose(-2, -1)
        dims = [-2] * self.flips_height + [-1] * self.flips_width
        return tensor.flip(dims) if dims else tensor

    def pixel(self, x: Tensor) -> Tensor:
        return self._move(x)

    def latent(self, z: Tensor) -> Tensor:
        return self._move(z)

    def carry_mask(self, x: Tensor, valid: Tensor) -> Tensor:
        return self._move(valid)

    @property
    def inverse(self) -> LatticeTransform:
        height, width = self.flips_height, self.flips_width
        if self.transposes:
            height, width = width, height
        return _BY_MOVE[self.transposes, height, width]

    def __matmul__(self, other: Transform) -> Transform:
        if not isinstance(other, LatticeTransform):
            return super().__matmul__(other)
        height, width = other.flips_height, other.flips_width
        if self.transposes:
            height, width = width, height
        return _BY_MOVE[
            self.transposes != other.transposes,
            self.flips_height != height,
            self.flips_width != width,
        ]


LATTICE = (
    LatticeTransform("identity"),
    LatticeTransform("rot180", flips_height=True, flips_width=True),
    LatticeTransform("hflip", flips_width=True),
    LatticeTransform("vflip", flips_height=True),
    LatticeTransform("rot90", transposes=True, flips_height=True),
    LatticeTransform("rot270", transposes=True, flips_width=True),
    LatticeTransform("transpose", transposes=True),
    LatticeTransform("antitranspose", transposes=True, flips_height=True, flips_width=True),
)
_BY_MOVE = {(t.transposes, t.flips_height, t.flips_width): t for t in LATTICE}
