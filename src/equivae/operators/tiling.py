"""A convolution over few channels, computed as one over more: the same sums in a third of the time.

Processors compute a block of output channels at a time, 16 of them in oneDNN, so that the four channels of a
latent leave most of it empty. The results of four rows, taken as channels of one convolution with a stride of
four rows, fill it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from equivae.operators.modules import ConvOperator, Kernel, Padding, pad_cells

__all__ = ["TiledConv"]

_BLOCK = 16


class TiledConv:
    """What a `ConvOperator` of images does to latents `(B, c, h, w)` in float32, without gradients.

    Args:
        operator: whose weights are copied, as they are now.
    """

    def __init__(self, operator: ConvOperator) -> None:
        self._weight = _Rows(operator.weight, operator.bias, operator.padding)
        self._border = self._magnitude = None
        if operator.border_weight is not None:
            self._border = _Rows(operator.border_weight, None, "zeros")
        if operator.magnitude_weight is not None:
            self._magnitude = _Rows(operator.magnitude_weight, None, operator.padding)
        self._borders: dict[tuple[int, int], Tensor] = {}

    def __call__(self, cells: Tensor) -> Tensor:
        moved = self._weight(cells)
        if self._magnitude is not None:
            moved += self._magnitude(cells.abs())
        if self._border is not None:  # the same for all latents of a size
            size = (cells.shape[-2], cells.shape[-1])
            if size not in self._borders:
                self._borders[size] = self._border(torch.ones(1, 1, *size))
            moved += self._borders[size]
        return moved


class _Rows:
    """A kernel `(o, i, kh, kw)` for several rows of the result at once."""

    def __init__(self, weight: Tensor, bias: Tensor | None, padding: Padding) -> None:
        outputs, inputs, height, width = weight.shape
        self.padding, self.kernel = padding, (height, width)
        self.outputs, self.rows = outputs, max(1, _BLOCK // outputs)
        tall = weight.new_zeros(outputs, self.rows, inputs, height + self.rows - 1, width)
        for row in range(self.rows):
            tall[:, row, :, row : row + height] = weight.detach()
        self.weight = tall.flatten(0, 1).float()
        self.bias = None if bias is None else bias.detach().float().repeat_interleave(self.rows)

    def __call__(self, cells: Tensor) -> Tensor:
        height = cells.shape[-2]
        kernel: Kernel = self.kernel
        margins = [side // 2 for side in kernel]
        if self.padding != "zeros":
            cells, margins = pad_cells(cells, kernel, self.padding), [0, 0]
        missing = -height % self.rows
        if missing:
            cells = F.pad(cells, (0, 0, 0, missing))
        made = F.conv2d(cells, self.weight, self.bias, stride=(self.rows, 1), padding=margins)
        count, _, tall, width = made.shape
        rows = made.view(count, self.outputs, self.rows, tall, width).transpose(2, 3)
        return rows.reshape(count, self.outputs, tall * self.rows, width)[:, :, :height]
