"""PatchGAN: a discriminator that judges patches, in the shape that VQGAN and LDM train."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["Norm", "PatchDiscriminator"]

Norm = Literal["batch", "group", "spectral", "none"]
_KERNEL, _SLOPE, _GROUPS, _MOST = 4, 0.2, 8, 8


class PatchDiscriminator(nn.Module):
    """Convolutions of 4x4, halving the image `depth` times; one value for every patch.

    The layers of LDM's `NLayerDiscriminator`: `depth` convolutions of stride 2 and two of stride 1, leaky
    ReLUs of slope .2 between them, channels doubling up to eight times `channels`, weights drawn with a
    standard deviation of .02. Source: Isola et al. (arXiv 1611.07004); Esser et al. (2012.09841).

    Args:
        image_channels: of the images.
        channels: of the first layer.
        depth: convolutions of stride 2; three see patches of 70x70 pixels.
        norm: `"batch"` as published, `"group"` (8 groups), `"spectral"` (Miyato et al., 1802.05957, on every
            convolution) or `"none"`.

    ```python
    import torch

    from equivae.losses.patchgan import PatchDiscriminator

    patches = PatchDiscriminator(channels=8)(torch.zeros(2, 3, 64, 64))
    assert patches.shape == (2, 1, 6, 6)
    ```
    """

    def __init__(
        self, image_channels: int = 3, *, channels: int = 64, depth: int = 3, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        widths = [channels * min(2**i, _MOST) for i in range(depth + 1)]
        layers: list[nn.Module] = [
            _conv(image_channels, channels, 2, norm, bias=True),
            nn.LeakyReLU(_SLOPE, inplace=False),
        ]
        for i in range(1, depth + 1):
            stride = 2 if i < depth else 1
            layers += [
                _conv(widths[i - 1], widths[i], stride, norm, bias=norm != "batch"),
                *_normalised(widths[i], norm),
                nn.LeakyReLU(_SLOPE, inplace=False),
            ]
        layers.append(_conv(widths[-1], 1, 1, norm, bias=True))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, 1, h, w)`, high where a patch looks like one of a photograph."""
        judged: Tensor = self.layers(images)
        return judged


def _conv(inputs: int, outputs: int, stride: int, norm: Norm, *, bias: bool) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, _KERNEL, stride=stride, padding=1, bias=bias)
    nn.init.normal_(layer.weight, 0.0, 0.02)
    return spectral_norm(layer) if norm == "spectral" else layer


def _normalised(channels: int, norm: Norm) -> list[nn.Module]:
    if norm == "batch":
        layer = nn.BatchNorm2d(channels)
        nn.init.normal_(layer.weight, 1.0, 0.02)
        return [layer]
    return [nn.GroupNorm(min(_GROUPS, channels), channels)] if norm == "group" else []
