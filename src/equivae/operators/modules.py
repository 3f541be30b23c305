"""The maps over latent channels that follow a grid move: a convolution, and a small residual network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivae.errors import InputError
from equivae.operators.regression import Padding, Solution, pad_cells

__all__ = [
    "ConvOperator",
    "LatentOperator",
    "ResidualOperator",
    "build_operator",
    "check_kernel_size",
]


class LatentOperator(nn.Module):
    """A map of latents `(..., c, h, w)` onto latents of the same shape, dtype and device.

    Its weights are frozen until `requires_grad_(True)`, so that a loss that uses it trains the VAE alone.
    """

    kind: str
    channels: int

    def config(self) -> dict[str, Any]:
        """What `build_operator` needs to make it again."""
        raise NotImplementedError

    def apply_batch(self, cells: Tensor) -> Tensor:
        """The map of a batch `(B, c, h, w)`."""
        raise NotImplementedError

    def forward(self, latents: Tensor) -> Tensor:
        if latents.ndim < 3 or latents.shape[-3] != self.channels:
            raise InputError(
                f"this operator was fitted on {self.channels} latent channels and got latents of shape "
                f"{tuple(latents.shape)}; fit one for this VAE."
            )
        batch = latents.reshape(-1, *latents.shape[-3:])
        return self.apply_batch(batch).reshape(latents.shape)


class ConvOperator(LatentOperator):
    r"""`W * z + b` with a kernel over `k x k` cells and all channels; the identity until it is fitted.

    Args:
        channels: latent channels `c`.
        kernel_size: `k`, odd.
        padding: how cells beyond the border are made up: `"zeros"`, `"replicate"` or `"reflect"`.
    """

    kind = "conv"

    def __init__(self, channels: int, kernel_size: int = 1, padding: Padding = "zeros") -> None:
        super().__init__()
        check_kernel_size(kernel_size)
        self.channels, self.kernel_size, self.padding = channels, kernel_size, padding
        weight = torch.zeros(channels, channels, kernel_size, kernel_size)
        middle = kernel_size // 2
        weight[:, :, middle, middle].fill_diagonal_(1.0)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)

    @classmethod
    def from_solution(cls, solution: Solution, padding: Padding) -> ConvOperator:
        """The operator of a least-squares solution, in float32."""
        made = cls(solution.weight.shape[0], solution.weight.shape[-1], padding)
        made.weight.copy_(solution.weight)
        made.bias.copy_(solution.bias)
        return made

    def config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "channels": self.channels,
            "kernel_size": self.kernel_size,
            "padding": self.padding,
        }

    def apply_batch(self, cells: Tensor) -> Tensor:
        weight, bias = self.weight.to(cells), self.bias.to(cells)
        return F.conv2d(pad_cells(cells, self.kernel_size, self.padding), weight, bias)


class ResidualOperator(LatentOperator):
    """A convolution plus a small network that corrects it: three 3x3 convolutions with GELU between.

    The network's last layer starts at zero, so that it begins as the convolution.

    Args:
        base: the convolution.
        width: channels inside the network.
    """

    kind = "network"

    def __init__(self, base: ConvOperator, width: int = 64) -> None:
        super().__init__()
        self.base, self.channels, self.width = base, base.channels, width
        self.network = nn.Sequential(
            nn.Conv2d(self.channels, width, 3),
            nn.GELU(),
            nn.Conv2d(width, width, 3),
            nn.GELU(),
            nn.Conv2d(width, self.channels, 3),
        )
        last = self.network[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.requires_grad_(False)

    def config(self) -> dict[str, Any]:
        return {**self.base.config(), "kind": self.kind, "width": self.width}

    def apply_batch(self, cells: Tensor) -> Tensor:
        correction = cells
        for layer in self.network:
            if isinstance(layer, nn.Conv2d):
                assert layer.bias is not None
                padded = pad_cells(correction, 3, self.base.padding)
                correction = F.conv2d(padded, layer.weight.to(cells), layer.bias.to(cells))
            else:
                correction = layer(correction)
        moved: Tensor = self.base.apply_batch(cells)
        return moved + correction


def build_operator(config: dict[str, Any]) -> LatentOperator:
    """The operator that `config()` describes, unfitted. `InputError` for an unknown kind."""
    kind = config.get("kind")
    if kind not in ("conv", "network"):
        raise InputError(
            f"unknown kind of latent operator {kind!r}; this version reads 'conv' and 'network'."
        )
    base = ConvOperator(config["channels"], config["kernel_size"], config["padding"])
    return base if kind == "conv" else ResidualOperator(base, config["width"])


def check_kernel_size(kernel_size: int) -> None:
    """`InputError` unless it is odd and at least 1."""
    if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
        raise InputError(
            f"kernel_size must be an odd number of latent cells such as 1, 3, 5 or 7, got {kernel_size!r}."
        )
