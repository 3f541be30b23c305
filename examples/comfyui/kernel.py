"""What a latent op does to the channels of the cells: the fitted part of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PADDINGS", "Kernel", "convolve"]

PADDINGS = {"zeros": "constant", "replicate": "replicate", "reflect": "reflect"}
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Kernel:
    """`W * z + b` over latent cells, and perhaps a small network that corrects it.

    Attributes:
        weight: `(c_out, c_in, *kernel)`.
        bias: `(c_out,)`.
        padding: how cells beyond the border are made up.
        border: `(c_out, 1, *kernel)`, over a channel of ones, which tells where the border is.
        magnitude: `(c_out, c_in, *kernel)`, over `|z|`.
        layers: weights and biases of the network, GELU between them.
    """

    weight: Tensor
    bias: Tensor
    padding: str = "zeros"
    border: Tensor | None = None
    magnitude: Tensor | None = None
    layers: tuple[tuple[Tensor, Tensor], ...] = ()
    moves_grid = False  # it follows the move

    @property
    def channels(self) -> int:
        """Of what it takes."""
        return self.weight.shape[1]

    @property
    def axes(self) -> int:
        """Of the grid: two for images, three for video."""
        return self.weight.ndim - 2

    def __call__(self, cells: Tensor) -> Tensor:
        weight, given = self.weight, cells
        if self.border is not None:
            weight = torch.cat([weight, self.border.to(weight)], 1)
            given = torch.cat([cells, torch.ones_like(cells[:, :1])], 1)
        made = convolve(given, weight, self.bias, self.padding)
        if self.magnitude is not None:
            nothing = torch.zeros_like(self.bias)
            made = made + convolve(cells.abs(), self.magnitude, nothing, self.padding)
        if not self.layers:
            return made
        correction = cells
        for i, (weight, bias) in enumerate(self.layers):
            correction = convolve(F.gelu(correction) if i else cells, weight, bias, self.padding)
        return made + correction


def convolve(cells: Tensor, weight: Tensor, bias: Tensor, padding: str) -> Tensor:
    margins = [side // 2 for side in reversed(weight.shape[2:]) for _ in range(2)]
    padded = F.pad(cells, margins, mode=PADDINGS[padding]) if any(margins) else cells
    return _CONVOLUTIONS[weight.ndim - 2](padded, weight.to(cells), bias.to(cells))
