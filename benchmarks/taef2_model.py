"""TAEF2, a real pretrained autoencoder that is no diffusers class, rebuilt from its card.

Source: github.com/madebyollin/taesd, MIT licence, copyright (c) 2023 Ollin Boer Bohan.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, width: int = 64, pooled: bool = False) -> None:
        super().__init__()
        convs: list[nn.Module] = []
        for i in range(3):
            convs += [nn.Conv2d(width, width, 3, padding=1)] + [nn.ReLU()] * (i < 2)
        self.conv = nn.Sequential(*convs)
        self.pool: nn.Module | None = None
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(width, 4 * width, 1, bias=False),
                nn.GroupNorm(4, 4 * width),
                nn.ReLU(),
                nn.Conv2d(4 * width, width, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _down() -> list[nn.Module]:
    return [nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False), Block(), Block(), Block()]


def _up(blocks: int) -> list[nn.Module]:
    conv = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    return [nn.Upsample(scale_factor=2), conv, *(Block() for _ in range(blocks))]


class TAEF2(nn.Module):
    """f8, 32 latent channels, deterministic; images `(B, 3, H, W)` in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        last = [nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)]
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1),
            Block(),
            *_down(),
            *_down(),
            *last,
            *(Block(pooled=True) for _ in range(3)),
            nn.Conv2d(64, 32, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            Clamp(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            *(Block(pooled=True) for _ in range(3)),
            *_up(3),
            *_up(3),
            *_up(1),
            nn.Conv2d(64, 3, 3, padding=1),
        )

    def encode(self, images: Tensor) -> Tensor:
        return self.encoder((images + 1) / 2)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents) * 2 - 1


def load_taef2(folder: str | Path) -> TAEF2:
    vae = TAEF2()
    for half in ("encoder", "decoder"):
        weights = load_file(Path(folder) / f"{half}.safetensors")
        getattr(vae, half).load_state_dict({k: v.float() for k, v in weights.items()})
    return vae.eval()
