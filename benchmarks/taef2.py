"""TAEF2, a small pretrained autoencoder that is no diffusers class, from the two files of its release.

Architecture and weights: https://github.com/madebyollin/taesd (MIT licence).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

__all__ = ["TAEF2", "load_taef2"]

_CHANNELS, _LATENT_CHANNELS = 64, 32


def _conv(inputs: int, outputs: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)  # type: ignore[arg-type]


class _Clamp(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z / 3) * 3


class _Block(nn.Module):
    """A residual block; with `pooled`, a normalised 1x1 branch is added to its input first."""

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        c = _CHANNELS
        self.conv = nn.Sequential(_conv(c, c), nn.ReLU(), _conv(c, c), nn.ReLU(), _conv(c, c))
        self.pool = (
            nn.Sequential(
                nn.Conv2d(c, 4 * c, 1, bias=False),
                nn.GroupNorm(4, 4 * c),
                nn.ReLU(),
                nn.Conv2d(4 * c, c, 1, bias=False),
            )
            if pooled
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


def _blocks(count: int, pooled: bool = False) -> list[nn.Module]:
    return [_Block(pooled) for _ in range(count)]


def _encoder() -> nn.Sequential:
    c = _CHANNELS

    def down() -> nn.Conv2d:
        return _conv(c, c, stride=2, bias=False)

    return nn.Sequential(
        *(_conv(3, c), *_blocks(1)),
        *(down(), *_blocks(3)),
        *(down(), *_blocks(3)),
        *(down(), *_blocks(3, pooled=True)),
        _conv(c, _LATENT_CHANNELS),
    )


def _decoder() -> nn.Sequential:
    c = _CHANNELS

    def up() -> list[nn.Module]:
        return [nn.Upsample(scale_factor=2), _conv(c, c, bias=False)]

    return nn.Sequential(
        *(_Clamp(), _conv(_LATENT_CHANNELS, c), nn.ReLU(), *_blocks(3, pooled=True)),
        *(*up(), *_blocks(3)),
        *(*up(), *_blocks(3)),
        *(*up(), *_blocks(1)),
        _conv(c, 3),
    )


class TAEF2(nn.Module):
    """f8, 32 latent channels, no posterior.

    `encode` takes images `(B, 3, H, W)` in [-1, 1] and returns latents `(B, 32, H / 8, W / 8)` of about
    [-3, 3]; `decode` goes back. (The published weights themselves work on images in [0, 1].)
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = _encoder(), _decoder()

    def encode(self, images: Tensor) -> Tensor:
        latents: Tensor = self.encoder(images.add(1).div(2))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        images: Tensor = self.decoder(latents)
        return images.mul(2).sub(1)


def load_taef2(folder: str | Path) -> TAEF2:
    """TAEF2 in float32 and eval mode, from the folder with its encoder's and decoder's safetensors."""
    model = TAEF2()
    for half in ("encoder", "decoder"):
        (path,) = Path(folder).glob(f"*{half}*.safetensors")
        getattr(model, half).load_state_dict(load_file(path))
    return model.eval()
