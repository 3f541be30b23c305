"""Scaling that changes the size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivae.transforms.cells import Pair, pair, whole_cells
from equivae.transforms.placing import CellTransform
from equivae.transforms.resampled.parameters import check_positive
from equivae.transforms.spelling import spell
from equivae.transforms.warp import Interpolation, check_option

__all__ = ["Scale"]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Scale(CellTransform):
    """Scaling that changes the size, as in EQ-VAE and the scale-equivariance paper.

    The latent gets `factor` times as large, rounded to whole cells, and the image just as many cells.
    It has no inverse: what scaling down discards does not come back.

    Args:
        factor: how much larger, such as `0.5`, or a pair (y, x).
        interpolation: `"bilinear"`, `"bicubic"` or `"nearest"`.
        antialias: filter before scaling down (not with `"nearest"`).
        cell: pixels per latent cell, the VAE's factor, which the pixel op needs; see `Transform.at_factor`.

    ```python
    import torch

    import equivae

    t = equivae.get_transform("scale", factor=11 / 32, cell=8)
    assert t.pixel(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 88, 88)
    assert t.latent(torch.zeros(1, 4, 32, 32)).shape == (1, 4, 11, 11)
    ```
    """

    factor: Pair = 0.5
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    exact = False
    layouts = ("image", "video")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("interpolation", self.interpolation, Interpolation)
        check_positive("factor", *pair(self.factor, "factor"))

    @property
    def name(self) -> str:  # type: ignore[override]
        shown: dict[str, object] = {"factor": self.factor}
        if self.interpolation != "bilinear":
            shown["interpolation"] = self.interpolation
        if not self.antialias:
            shown["antialias"] = False
        return spell("scale", **shown)

    def _resize(self, tensor: Tensor, cell: int) -> Tensor:
        sides = zip(tensor.shape[-2:], pair(self.factor, "factor"), strict=True)
        size = [max(1, int(whole_cells(side, cell) * by + 0.5)) * cell for side, by in sides]
        planes = tensor.reshape(-1, 1, *tensor.shape[-2:])
        if planes.dtype in (torch.float16, torch.bfloat16):
            planes = planes.float()
        # torch 2.13's anti-aliased interpolate repeats the first row when the result is one pixel wide.
        narrow = size[1] == 1
        resized = F.interpolate(
            planes.mT if narrow else planes,
            size[::-1] if narrow else size,
            mode=self.interpolation,
            align_corners=None if self.interpolation == "nearest" else False,
            antialias=self.antialias and self.interpolation != "nearest",
        )
        resized = resized.mT if narrow else resized
        return resized.reshape(*tensor.shape[:-2], *size).to(tensor.dtype)

    def pixel(self, x: Tensor) -> Tensor:
        return self._resize(x, self.pixels_per_cell)

    def latent(self, z: Tensor) -> Tensor:
        return self._resize(z, 1)

    def _does(self) -> Mapping[str, Any]:
        return {**super()._does(), "factor": pair(self.factor, "factor")}
