"""The maps over latent channels that follow a grid move: a convolution, and a small residual network."""

from __future__ import annotations

import itertools
import math
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivae.errors import InputError
from equivae.operators.regression import Kernel, Padding, Solution, pad_cells
from equivae.options import quoted

__all__ = [
    "LARGEST_KERNEL",
    "ConvOperator",
    "LatentOperator",
    "ResidualOperator",
    "build_operator",
    "check_kernel_size",
]


LARGEST_KERNEL = 99
"""Latent cells along an axis; a larger fit would need tens of gigabytes even for four channels."""

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_GRIDS = {1: "audio (B, c, t)", 2: "images (B, c, h, w)", 3: "video (B, c, t, h, w)"}


class LatentOperator(nn.Module):
    """A map of latents `(..., c, *grid)` onto latents of the same shape, dtype and device.

    The grid has one axis for audio, two for images and three, time first, for video.

    Its weights are frozen until `requires_grad_(True)`, so that a loss that uses it trains the VAE alone.
    """

    kind: str
    channels: int
    kernel: Kernel

    @property
    def kernel_size(self) -> int:
        """The largest side of the kernel, in latent cells."""
        return max(self.kernel)

    def config(self) -> dict[str, Any]:
        """What `build_operator` needs to make it again."""
        raise NotImplementedError

    def apply_batch(self, cells: Tensor) -> Tensor:
        """The map of a batch `(B, c, *grid)`."""
        raise NotImplementedError

    def forward(self, latents: Tensor) -> Tensor:
        axes = len(self.kernel) + 1
        if latents.ndim < axes or latents.shape[-axes] != self.channels:
            raise InputError(
                f"this operator was fitted on {self.channels} latent channels of {_GRIDS[axes - 1]} and "
                f"got latents of shape {tuple(latents.shape)}; fit one for this VAE."
            )
        batch = latents.reshape(-1, *latents.shape[-axes:])
        return self.apply_batch(batch).reshape(latents.shape)


class ConvOperator(LatentOperator):
    r"""`W * z + b` with a kernel over latent cells and all channels; the identity until it is fitted.

    Args:
        channels: latent channels `c`.
        kernel_size: odd number `k`, for `k x k` cells of an image's latent; or one number for every axis
            of the grid: `(k,)` for audio, `(kt, kh, kw)` for video.
        padding: how cells beyond the border are made up: `"zeros"`, `"replicate"` or `"reflect"`.
    """

    kind = "conv"

    def __init__(
        self, channels: int, kernel_size: int | Kernel = 1, padding: Padding = "zeros"
    ) -> None:
        super().__init__()
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        for size in kernel:
            check_kernel_size(size)
        self.channels, self.kernel, self.padding = channels, kernel, padding
        weight = torch.zeros(channels, channels, math.prod(kernel))
        weight[:, :, weight.shape[-1] // 2].fill_diagonal_(1.0)
        weight = weight.reshape(channels, channels, *kernel)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)

    @classmethod
    def from_solution(cls, solution: Solution, padding: Padding) -> ConvOperator:
        """The operator of a least-squares solution, in float32."""
        made = cls(solution.weight.shape[0], tuple(solution.weight.shape[2:]), padding)
        made.weight.copy_(solution.weight)
        made.bias.copy_(solution.bias)
        return made

    def config(self) -> dict[str, Any]:
        square = self.kernel == (self.kernel_size, self.kernel_size)
        return {
            "kind": self.kind,
            "channels": self.channels,
            "kernel_size": self.kernel_size if square else list(self.kernel),
            "padding": self.padding,
        }

    def apply_batch(self, cells: Tensor) -> Tensor:
        weight, bias = self.weight.to(cells), self.bias.to(cells)
        padded = pad_cells(cells, self.kernel, self.padding)
        moved: Tensor = _CONVOLUTIONS[len(self.kernel)](padded, weight, bias)
        return moved


class ResidualOperator(LatentOperator):
    """A convolution plus a small network that corrects it: convolutions with GELU between.

    Their kernel is 3 along every axis along which the base's is larger than 1. The last one starts at
    zero, so that the network begins as the base.

    Args:
        base: the convolution.
        width: channels inside the network.
        layers: how many convolutions.
    """

    kind = "network"

    def __init__(self, base: ConvOperator, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.base, self.channels, self.kernel, self.width = base, base.channels, base.kernel, width
        reach = tuple(min(3, size) for size in base.kernel) if max(base.kernel) > 1 else None
        self.reach: Kernel = reach or (3,) * len(base.kernel)
        sides = [self.channels, *[width] * (layers - 1), self.channels]
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(self.kernel) - 1]
        self.network = nn.ModuleList(
            kind(inputs, outputs, self.reach)  # type: ignore[arg-type]
            for inputs, outputs in itertools.pairwise(sides)
        )
        last = self.network[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.requires_grad_(False)

    def config(self) -> dict[str, Any]:
        own = {"kind": self.kind, "width": self.width, "layers": len(self.network)}
        return {**self.base.config(), **own}

    def apply_batch(self, cells: Tensor) -> Tensor:
        convolve = _CONVOLUTIONS[len(self.kernel)]
        correction = cells
        for i, layer in enumerate(self.network):
            padded = pad_cells(F.gelu(correction) if i else cells, self.reach, self.base.padding)
            weight, bias = (parameter.to(cells) for parameter in layer.parameters())
            correction = convolve(padded, weight, bias)
        return self.base.apply_batch(cells) + correction


def build_operator(config: dict[str, Any]) -> LatentOperator:
    """The operator that `config()` describes, unfitted. `InputError` for an unknown kind."""
    kind = config.get("kind")
    if kind not in ("conv", "network"):
        raise InputError(
            f"unknown kind of latent operator {kind!r}; this version reads 'conv' and 'network'."
        )
    size = config["kernel_size"]
    kernel = size if isinstance(size, int) else tuple(size)
    base = ConvOperator(config["channels"], kernel, config["padding"])
    if kind == "conv":
        return base
    return ResidualOperator(base, config["width"], config["layers"])


def check_kernel_size(kernel_size: int) -> None:
    """`InputError` unless it is odd, at least 1 and at most `LARGEST_KERNEL`."""
    whole = isinstance(kernel_size, Integral) and not isinstance(kernel_size, bool)
    if not whole or not 1 <= kernel_size <= LARGEST_KERNEL or kernel_size % 2 == 0:
        raise InputError(
            f"kernel_size must be an odd number of latent cells such as 1, 3, 5 or 7, at most "
            f"{LARGEST_KERNEL}, got {quoted(kernel_size)}."
        )
