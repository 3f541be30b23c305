"""Pasting: a window of one sample in another."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equivae.transforms.cells import Pair, check_window, pair, whole_cells
from equivae.transforms.placing import CellTransform
from equivae.transforms.spelling import spell
from equivae.units import window_span

__all__ = ["Paste"]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Paste(CellTransform):
    """A window of whole latent cells, pasted from the sample before: `T(x)_i = m x_{i-1} + (1 - m) x_i`.

    Args:
        size: the window's share of the height and width, in (0, 1], or a pair (y, x); rounded to whole cells.
        y: where it lies vertically: 0 at the top, 0.5 in the middle, 1 at the bottom.
        x: where it lies horizontally, 0 at the left.
        cell: pixels per latent cell, the VAE's factor, which the pixel op needs; see `Transform.at_factor`.

    A latent op that is fitted for it corrects the cells beside the seam, and its operator pastes through any
    mask: `fitted.operator.paste(destination, source, mask)`.

    ```python
    import torch

    import equivae

    t = equivae.get_transform("paste", size=0.5, cell=8)
    x = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    assert t.pixel(x)[0].mean() == 0.25
    assert t.latent(torch.zeros(2, 4, 4, 4)).shape == (2, 4, 4, 4)
    ```
    """

    size: Pair = 0.5
    y: float = 0.5
    x: float = 0.5
    mixes_samples = True
    layouts = ("image", "video")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.size, self.y, self.x)

    @property
    def name(self) -> str:  # type: ignore[override]
        return spell("paste", size=self.size, y=self.y, x=self.x)

    def _paste(self, batch: Tensor, cell: int) -> Tensor:
        if len(batch) == 1:
            warnings.warn(
                f"transform {self.name!r} pastes every sample into another, and leaves the only one of this "
                "batch as it is; give at least two.",
                RuntimeWarning,
                stacklevel=3,
            )
        shares, places = pair(self.size, "size"), (self.y, self.x)
        inside = torch.zeros(batch.shape[-2:], dtype=torch.bool, device=batch.device)
        spans = []
        for side, share, place in zip(inside.shape, shares, places, strict=True):
            start, kept = window_span(whole_cells(side, cell), share, place)
            spans.append(slice(start * cell, (start + kept) * cell))
        inside[spans[0], spans[1]] = True
        return torch.where(inside, batch.roll(1, 0), batch)

    def pixel(self, x: Tensor) -> Tensor:
        return self._paste(x, self.pixels_per_cell)

    def latent(self, z: Tensor) -> Tensor:
        return self._paste(z, 1)

    def _does(self) -> Mapping[str, Any]:
        return {**super()._does(), "size": pair(self.size, "size")}
