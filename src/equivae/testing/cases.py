"""The inputs that transforms are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equivae.transforms import Transform

__all__ = ["Case", "noise"]

_NOUNS = {"image": "images", "video": "videos", "audio": "audio clips"}
_SMOOTH_CELLS = 16  # along an axis, where interpolated results are compared


@dataclass(frozen=True)
class Case:
    """One input: its layout, its size in latent cells, and the seed of its values and of the draw."""

    layout: str
    batch: int
    cells: tuple[int, ...]
    seed: int
    factor: int
    image_channels: int
    latent_channels: int

    def __str__(self) -> str:
        pixels = "x".join(map(str, self.image_shape[1:]))
        cells = "x".join(map(str, self.latent_shape[1:]))
        noun = _NOUNS[self.layout] if self.batch > 1 else _NOUNS[self.layout][:-1]
        return f"{self.batch} {noun} of {pixels} (latents {cells}), seed {self.seed}"

    @property
    def image_shape(self) -> tuple[int, ...]:
        sides = (cells * self.factor for cells in self.cells)
        return (self.batch, self.image_channels, *sides)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.batch, self.latent_channels, *self.cells)

    def image(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return noise(self.image_shape, self.seed, dtype)

    def latent(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return noise(self.latent_shape, self.seed + 1, dtype)

    def smooth(self, block: int) -> tuple[Tensor, Tensor]:
        """Waves on `_SMOOTH_CELLS` squared cells, or as many as make whole blocks: the image, and a latent on
        its own grid."""
        frames = (2,) if self.layout == "video" else ()
        pixels, cells = self.image_shape[:2] + frames, self.latent_shape[:2] + frames
        side = -(-_SMOOTH_CELLS // block) * block
        return _waves(pixels, side * self.factor, self.seed), _waves(cells, side, self.seed)

    def drawn(self, transform: Transform) -> Transform:
        generator = torch.Generator().manual_seed(self.seed)
        return transform.at_factor(self.factor, self.factor).draw(self.batch, generator)


def noise(shape: Sequence[int], seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64).mul(2).sub(1).to(dtype)


def _waves(leading: Sequence[int], side: int, seed: int) -> Tensor:
    """`(*leading, side, side)`: the mean of a vertical and a horizontal wave of one period."""
    phase = noise((2, *leading), seed, torch.float64)[..., None] * torch.pi
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 * torch.pi
    y, x = torch.cos(centres + phase[0]), torch.cos(centres + phase[1])
    return (y[..., :, None] + x[..., None, :]) / 2
