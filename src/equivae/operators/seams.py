"""Operators for where latents were cut or put together: the plain latent op, corrected beside the seam alone.

An encoder looks beyond a cell, so that cells beside the edge of a crop or a pasted window still say what used
to be beyond that edge. The correction is linear in what is in the result, in what was taken away, and in
where the seam runs; far from it the plain latent op is right as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivae.errors import InputError
from equivae.operators.modules import LatentOperator, check_kernel_size
from equivae.units import window_span

__all__ = ["Pasted", "SeamOperator", "Window"]


@dataclass(frozen=True)
class Window:
    """A window of whole cells.

    Attributes:
        size: its share of height and width.
        place: where it lies along each, 0 at the beginning, 1 at the end.
        pastes: whether it is filled from the sample before; else all but it is cut off.
    """

    size: tuple[float, float]
    place: tuple[float, float]
    pastes: bool

    def spans(self, height: int, width: int) -> tuple[slice, slice]:
        """Its cells along both axes."""
        rows, columns = (
            window_span(side, share, place)
            for side, share, place in zip((height, width), self.size, self.place, strict=True)
        )
        return slice(rows[0], sum(rows)), slice(columns[0], sum(columns))

    def mask(self, height: int, width: int) -> Tensor:
        """1 inside and 0 outside, `(h, w)`."""
        made = torch.zeros(height, width)
        made[self.spans(height, width)] = 1
        return made


@dataclass(frozen=True)
class Pasted:
    """Two latents, one pasted into the other, and what a correction is told from.

    Attributes:
        plain: the plain latent op's result, `(B, c, h, w)`.
        index: of the cells beside the seam, in a flattened grid.
        rows: for each of them what lies around it, `(B, cells, entries)`.
    """

    plain: Tensor
    index: Tensor
    rows: Tensor


class SeamOperator(LatentOperator):
    """The plain crop or paste of a window, with its cells beside the seam corrected; plain until fitted.

    Args:
        channels: of the latents.
        kernel_size: how many cells around one it looks at, odd; half of it is how far from the seam it goes.
        window: what it crops or pastes.
    """

    kind = "seam"
    moves_grid = True

    def __init__(self, channels: int, kernel_size: int, window: Window) -> None:
        super().__init__()
        check_kernel_size(kernel_size)
        self.channels, self.kernel, self.window = channels, (kernel_size, kernel_size), window
        self.weight = nn.Parameter(torch.zeros(channels, self.entries), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)

    @property
    def entries(self) -> int:
        """Numbers that a cell's correction is told from."""
        return (self.channels * (4 if self.window.pastes else 2) + 2) * self.kernel_size**2

    def config(self) -> dict[str, Any]:
        sizes = {"channels": self.channels, "kernel_size": self.kernel_size}
        return {"kind": self.kind, **sizes, "window": asdict(self.window)}

    def seam(self, cells: Tensor) -> Pasted:
        """Its own window of a batch: cropped, or pasted from the sample before."""
        mask = self.window.mask(*cells.shape[-2:]).to(cells)
        if self.window.pastes:
            return self._between(cells, cells.roll(1, 0), mask)
        spans = self.window.spans(*cells.shape[-2:])
        beside = _beside(mask, self.kernel_size)[spans].flatten().nonzero().flatten()
        cut = self._around([cells * mask, cells * (1 - mask)], mask)[:, :, spans[0], spans[1]]
        return Pasted(cells[..., spans[0], spans[1]], beside, self._rows(cut, beside))

    def paste(self, destination: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """One latent pasted into another through any mask, as ComfyUI's LatentCompositeMasked does.

        Args:
            destination: `(B, c, h, w)`, unscaled, as `source`.
            source: what is pasted, in its place already.
            mask: `(h, w)` on the latent grid, 1 where the source shall be; values between blend.

        Raises `InputError` for an operator that crops, and for shapes that differ.
        """
        size = destination.shape[-2:]
        if not self.window.pastes:
            raise InputError("this operator was fitted for a crop; fit one for `paste`.")
        if destination.shape != source.shape or mask.shape != size:
            raise InputError(
                "destination and source have to be latents (B, c, h, w) of one shape and the mask (h, w) of "
                f"their grid, got {tuple(destination.shape)}, {tuple(source.shape)} and {tuple(mask.shape)}."
            )
        return self._corrected(self._between(destination, source, mask.to(destination)))

    def apply_batch(self, cells: Tensor) -> Tensor:
        return self._corrected(self.seam(cells))

    def _corrected(self, seam: Pasted) -> Tensor:
        correction = F.linear(seam.rows, self.weight.to(seam.rows), self.bias.to(seam.rows))
        flat = seam.plain.flatten(2)
        index = seam.index.to(flat.device)
        return flat.index_add(2, index, correction.transpose(1, 2)).reshape(seam.plain.shape)

    def _between(self, below: Tensor, above: Tensor, mask: Tensor) -> Pasted:
        planes = [above * mask, below * (1 - mask), below * mask, above * (1 - mask)]
        around = self._around(planes, mask)
        beside = _beside(mask, self.kernel_size).flatten().nonzero().flatten()
        return Pasted(planes[0] + planes[1], beside, self._rows(around, beside))

    def _around(self, planes: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Every cell's neighbourhood, `(B, planes, h, w, k, k)`: planes, mask, and what no image is."""
        margin = self.kernel_size // 2
        known = torch.cat([*planes, mask.expand(len(planes[0]), 1, *mask.shape)], 1)
        padded = F.pad(known, [margin] * 4)
        beyond = F.pad(torch.zeros_like(known[:, :1]), [margin] * 4, value=1.0)
        padded = torch.cat([padded, beyond], 1)
        return padded.unfold(2, self.kernel_size, 1).unfold(3, self.kernel_size, 1)

    def _rows(self, around: Tensor, index: Tensor) -> Tensor:
        width = around.shape[3]
        chosen = around[:, :, index // width, index % width]
        return chosen.transpose(1, 2).flatten(2)


def _beside(mask: Tensor, size: int) -> Tensor:
    """The cells in whose neighbourhood the mask changes, bool `(h, w)`."""
    margin = size // 2
    padded = F.pad(mask.float()[None, None], [margin] * 4, mode="replicate")
    low, high = (sign * F.max_pool2d(sign * padded, size, 1) for sign in (-1, 1))
    return (high > low)[0, 0]
