"""Shifts by parts of a latent cell, with ideal interpolation."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from equivae.transforms.checks import check_between
from equivae.transforms.placing import CellTransform
from equivae.transforms.spelling import spell

__all__ = ["FractionalShift"]

_MOST_CELLS = 2**16


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FractionalShift(CellTransform):
    """AF-LDM's shift by parts of a cell with ideal interpolation, in the Fourier domain
    (arXiv 2503.09419, section 3).

    Args:
        y: latent cells downwards, such as `0.5` or `1.125`.
        x: latent cells to the right.
        cyclic: whether what enters on the other side counts. If not, the mask leaves it out.
        cell: pixels per latent cell, the VAE's factor, which the pixel op and the mask need; see
            `Transform.at_factor`.

    A shift by whole pixels is exact on the pixel grid. Half precision is computed in float32.

    ```python
    import torch

    import equivae

    t = equivae.get_transform("fractional_shift", y=0.5, x=0.0, cell=8)
    x = torch.rand(1, 3, 32, 32)
    assert torch.allclose(t.pixel(x), x.roll(4, -2), atol=1e-5)
    assert t.mask(x)[8:].all() and not t.mask(x)[:8].any()
    ```
    """

    y: float = 0.5
    x: float = 0.5
    cyclic: bool = False
    exact = False
    layouts = ("image", "video")

    def __post_init__(self) -> None:
        super().__post_init__()
        for what in ("y", "x"):
            check_between(what, getattr(self, what), -_MOST_CELLS, _MOST_CELLS)

    @property
    def name(self) -> str:  # type: ignore[override]
        shown: dict[str, object] = {"y": self.y, "x": self.x}
        if self.cyclic:
            shown["cyclic"] = True
        return spell("fractional_shift", **shown)

    def _move(self, tensor: Tensor, cell: int) -> Tensor:
        moved = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        for by, axis in ((self.y * cell, -2), (self.x * cell, -1)):
            if by == int(by):
                moved = moved.roll(int(by), axis) if by else moved
                continue
            size = moved.shape[axis]
            frequency = torch.fft.rfftfreq(size, device=moved.device, dtype=moved.dtype)
            phase = torch.polar(torch.ones_like(frequency), frequency * (-2 * math.pi * by))
            spectrum = torch.fft.rfft(moved, dim=axis) * (phase[:, None] if axis == -2 else phase)
            moved = torch.fft.irfft(spectrum, n=size, dim=axis)
        return moved.to(tensor.dtype)

    def pixel(self, x: Tensor) -> Tensor:
        return self._move(x, self.pixels_per_cell)

    def latent(self, z: Tensor) -> Tensor:
        return self._move(z, 1)

    @property
    def inverse(self) -> FractionalShift:
        return dataclasses.replace(self, y=-self.y, x=-self.x)

    def mask(self, x: Tensor) -> Tensor | None:
        if self.cyclic:
            return None
        inside = torch.ones(1, 1, *x.shape[-2:], dtype=torch.bool, device=x.device)
        return self.carry_mask(x, inside)[0, 0]

    def carry_mask(self, x: Tensor, valid: Tensor) -> Tensor:
        carried, cell = valid.clone(), self.pixels_per_cell
        for by, axis in ((self.y, -2), (self.x, -1)):
            # Both neighbours of a point between two cells have to be inside.
            reached = {math.floor(by) * cell, math.ceil(by) * cell}
            carried = torch.stack([self._slid(carried, step, axis) for step in reached]).all(0)
        return carried

    def _slid(self, valid: Tensor, step: int, axis: int) -> Tensor:
        slid = valid.roll(step, axis)
        if not self.cyclic and step:
            length = min(abs(step), slid.shape[axis])
            slid.narrow(axis, 0 if step > 0 else slid.shape[axis] - length, length).fill_(False)
        return slid
