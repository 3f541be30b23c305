"""Small autoencoders for the tests, some with known answers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn


def tiny_kl(seed: int = 0, **options: Any) -> AutoencoderKL:
    """A random f2 `AutoencoderKL` with about 10,000 weights."""
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": 16,
        "mid_block_add_attention": False,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoencoderKL(**{**settings, **options}).eval()


class ConvAE(nn.Module):
    """Convolutions with `encode` and `decode` on tensors; f2, not equivariant under anything."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = nn.Conv2d(3, 4, 2, stride=2)
            self.decoder = nn.ConvTranspose2d(4, 3, 2, stride=2)

    def encode(self, images: Tensor) -> Tensor:
        return torch.tanh(self.encoder(images))

    def decode(self, latents: Tensor) -> Tensor:
        return torch.tanh(self.decoder(latents))


class PoolAE(nn.Module):
    """Average pooling and nearest upsampling: exactly equivariant under the lattice, no weights."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor

    def encode(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, self.factor)

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents, scale_factor=self.factor, mode="nearest")


class MarkedAE(PoolAE):
    """A `PoolAE` with a known defect: `+up` in the latent, `-down` in the image, of opposite sign in
    the upper and in the lower half.

    On images that pooling keeps, the reconstruction is off by `up - down` everywhere, and the round trip
    of every transform that exchanges upper and lower half by `up + down`.
    """

    def __init__(self, up: float, down: float) -> None:
        super().__init__()
        self.up, self.down = up, down

    @staticmethod
    def sign(like: Tensor) -> Tensor:
        height = like.shape[-2]
        row = torch.where(torch.arange(height) < height // 2, 1.0, -1.0)
        return row.to(like.dtype).view(height, 1)

    def encode(self, images: Tensor) -> Tensor:
        latents = super().encode(images)
        return latents + self.up * self.sign(latents)

    def decode(self, latents: Tensor) -> Tensor:
        images = super().decode(latents)
        return images - self.down * self.sign(images)


def noise(*shape: int, seed: int = 0, scale: float = 0.9) -> Tensor:
    """Uniform in `[-scale, scale]`."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=generator) * 2 - 1) * scale


def cells(batch: int, height: int, width: int, seed: int = 0, scale: float = 0.5) -> Tensor:
    """Images `(B, 3, height, width)` that are constant on 2x2 cells, so that pooling loses nothing."""
    coarse = noise(batch, 3, height // 2, width // 2, seed=seed, scale=scale)
    return F.interpolate(coarse, scale_factor=2, mode="nearest")
