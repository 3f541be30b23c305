"""The maps over latent channels that follow a plain latent op: a convolution and a small residual network."""

from __future__ import annotations

import itertools
import math
from numbers import Integral
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivae.errors import InputError
from equivae.options import quoted

__all__ = [
    "CONVOLUTIONS",
    "LARGEST_KERNEL",
    "ConvOperator",
    "Kernel",
    "LatentOperator",
    "Padding",
    "ResidualOperator",
    "check_kernel_size",
    "moved",
    "pad_cells",
]

Kernel = tuple[int, ...]
"""Numbers of latent cells, one for every axis of the grid: `(k, k)` for images."""

Padding = Literal["replicate", "zeros", "reflect"]
_NETWORK_RATE = 3.0  # of a network's own layers, relative to that of its base
_MODES = {"replicate": "replicate", "zeros": "constant", "reflect": "reflect"}

LARGEST_KERNEL = 99
"""Latent cells along an axis; a larger fit would need tens of gigabytes even for four channels."""

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_GRIDS = {1: "audio (B, c, t)", 2: "images (B, c, h, w)", 3: "video (B, c, t, h, w)"}


def pad_cells(cells: Tensor, kernel: Kernel, padding: Padding) -> Tensor:
    """Cells `(B, c, *grid)` with half a kernel more of them on every side of every axis."""
    margins = [size // 2 for size in reversed(kernel) for _ in range(2)]
    return F.pad(cells, margins, mode=_MODES[padding]) if any(margins) else cells


def moved(latents: Tensor, move: dict[str, bool]) -> Tensor:
    """The plain latent op on a grid: the last two axes exchanged or not, then flipped or not."""
    if move.get("transposes"):
        latents = latents.transpose(-2, -1)
    axes = [-2] * bool(move.get("flips_height")) + [-1] * bool(move.get("flips_width"))
    return latents.flip(axes) if axes else latents


class LatentOperator(nn.Module):
    """A map of latents `(..., c, *grid)` onto latents of the same dtype and device.

    The grid has one axis for audio, two for images and three, time first, for video. Most operators keep
    it and follow a plain latent op; one with `moves_grid` takes the untouched latent to the new grid itself.

    Its weights are frozen until `requires_grad_(True)`, so that a loss that uses it trains the VAE alone.
    """

    kind: str
    channels: int
    kernel: Kernel
    moves_grid: bool = False

    @property
    def kernel_size(self) -> int:
        """The largest side of the kernel, in latent cells."""
        return max(self.kernel)

    @property
    def takes(self) -> int:
        """Channels of the latents that it is given; `channels` are those of what it returns."""
        return self.channels

    def config(self) -> dict[str, Any]:
        """What `build_operator` needs to make it again."""
        raise NotImplementedError

    def apply_batch(self, cells: Tensor) -> Tensor:
        """The map of a batch `(B, c, *grid)`."""
        raise NotImplementedError

    def head(self, channels: int) -> LatentOperator:
        """For an operator that moves the grid, one that moves so many other channels to this one's."""
        raise NotImplementedError

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """The parameters, with the learning rate of each group relative to the one that is asked for."""
        return [(list(self.parameters()), 1.0)]

    def forward(self, latents: Tensor) -> Tensor:
        axes = len(self.kernel) + 1
        if latents.ndim < axes or latents.shape[-axes] != self.takes:
            raise InputError(
                f"this operator was fitted on {self.takes} latent channels of {_GRIDS[axes - 1]} and "
                f"got latents of shape {tuple(latents.shape)}; fit one for this VAE."
            )
        moved = self.apply_batch(latents.reshape(-1, *latents.shape[-axes:]))
        return moved.reshape(*latents.shape[:-axes], *moved.shape[1:])


class ConvOperator(LatentOperator):
    r"""`W * z + b` with a kernel over latent cells and all channels; the identity until it is fitted.

    Args:
        channels: latent channels `c`.
        kernel_size: odd number `k`, for `k x k` cells of an image's latent; or one number for every axis
            of the grid: `(k,)` for audio, `(kt, kh, kw)` for video.
        padding: how cells beyond the border are made up: `"zeros"`, `"replicate"` or `"reflect"`.
        border: whether a channel of ones lies beside the zero-padded latent, so that the operator knows
            where the border is; the kernel of the latent itself is then not bent by it.
        magnitude: side of a kernel over `|z|` beside that over `z`; 0 for none.
    """

    kind = "conv"

    def __init__(
        self,
        channels: int,
        kernel_size: int | Kernel = 1,
        padding: Padding = "zeros",
        *,
        border: bool = False,
        magnitude: int = 0,
    ) -> None:
        super().__init__()
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        for size in kernel:
            check_kernel_size(size)
        self.channels, self.kernel, self.padding = channels, kernel, padding
        self.magnitude = magnitude
        weight = torch.zeros(channels, channels, math.prod(kernel))
        weight[:, :, weight.shape[-1] // 2].fill_diagonal_(1.0)
        weight = weight.reshape(channels, channels, *kernel)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)
        self.border_weight = self.magnitude_weight = None
        if border:
            self.border_weight = nn.Parameter(
                torch.zeros(channels, 1, *kernel), requires_grad=False
            )
        if magnitude:
            zeros = torch.zeros(channels, channels, *self.magnitude_kernel)
            self.magnitude_weight = nn.Parameter(zeros, requires_grad=False)

    @property
    def magnitude_kernel(self) -> Kernel:
        """The kernel over `|z|`, no longer than that over `z` along any axis."""
        return tuple(min(size, self.magnitude) for size in self.kernel)

    def config(self) -> dict[str, Any]:
        square = self.kernel == (self.kernel_size, self.kernel_size)
        return {
            "kind": self.kind,
            "channels": self.channels,
            "kernel_size": self.kernel_size if square else list(self.kernel),
            "padding": self.padding,
            "border": self.border_weight is not None,
            "magnitude": self.magnitude,
        }

    def apply_batch(self, cells: Tensor) -> Tensor:
        convolve = CONVOLUTIONS[len(self.kernel)]
        weight, bias, given = self.weight.to(cells), self.bias.to(cells), cells
        if self.border_weight is not None:
            weight = torch.cat([weight, self.border_weight.to(cells)], 1)
            given = torch.cat([cells, torch.ones_like(cells[:, :1])], 1)
        moved: Tensor = convolve(pad_cells(given, self.kernel, self.padding), weight, bias)
        if self.magnitude_weight is not None:
            sizes = pad_cells(cells.abs(), self.magnitude_kernel, self.padding)
            moved = moved + convolve(sizes, self.magnitude_weight.to(cells))
        return moved


class ResidualOperator(LatentOperator):
    """A fitted operator plus a small network that corrects it: convolutions with GELU between.

    Their kernel is 3 along every axis along which the base's is larger than 1. The last one starts at
    zero, so that the network begins as the base. Under a base that moves the grid it is another such
    operator, which takes what the convolutions make of the untouched latent to the new grid.

    Args:
        base: the operator to correct.
        width: channels inside the network.
        layers: how many layers.
        seed: of the initial weights.
    """

    kind = "network"

    def __init__(
        self, base: LatentOperator, width: int = 64, layers: int = 3, seed: int = 0
    ) -> None:
        super().__init__()
        self.base, self.channels, self.kernel = base, base.channels, base.kernel
        self.width, self.moves_grid = width, base.moves_grid
        reach = tuple(min(3, size) for size in base.kernel) if max(base.kernel) > 1 else None
        self.reach: Kernel = reach or (3,) * len(base.kernel)
        self.padding: Padding = base.padding if isinstance(base, ConvOperator) else "zeros"
        sides = [self.channels, *[width] * (layers - 1), self.channels]
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(self.kernel) - 1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts: list[nn.Module] = [
                kind(inputs, outputs, self.reach)  # type: ignore[arg-type]
                for inputs, outputs in itertools.pairwise(sides)
            ]
        if base.moves_grid:
            parts[-1] = base.head(width)
        self.network = nn.ModuleList(parts)
        for parameter in parts[-1].parameters():
            nn.init.zeros_(parameter)
        self.requires_grad_(False)

    def config(self) -> dict[str, Any]:
        own = {"kind": self.kind, "width": self.width, "layers": len(self.network)}
        return {**own, "base": self.base.config()}

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        # The base was solved for; a network whose last layer starts at zero bears longer steps.
        return [
            (list(self.base.parameters()), 1.0),
            (list(self.network.parameters()), _NETWORK_RATE),
        ]

    def apply_batch(self, cells: Tensor) -> Tensor:
        convolve = CONVOLUTIONS[len(self.kernel)]
        correction = cells
        for i, layer in enumerate(self.network):
            given = F.gelu(correction) if i else cells
            if isinstance(layer, LatentOperator):
                correction = layer.apply_batch(given)
                continue
            weight, bias = (parameter.to(cells) for parameter in layer.parameters())
            correction = convolve(pad_cells(given, self.reach, self.padding), weight, bias)
        return self.base.apply_batch(cells) + correction


def check_kernel_size(kernel_size: int) -> None:
    """`InputError` unless it is odd, at least 1 and at most `LARGEST_KERNEL`."""
    whole = isinstance(kernel_size, Integral) and not isinstance(kernel_size, bool)
    if not whole or not 1 <= kernel_size <= LARGEST_KERNEL or kernel_size % 2 == 0:
        raise InputError(
            f"kernel_size must be an odd number of latent cells such as 1, 3, 5 or 7, at most "
            f"{LARGEST_KERNEL}, got {quoted(kernel_size)}."
        )
