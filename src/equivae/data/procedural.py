"""A procedural image set that needs no download and no licence: dead leaves.

Dead-leaves images (Lee, Mumford & Huang, *Occlusion Models for Natural Images*, IJCV 2001) are
opaque shapes of power-law size that occlude each other. They share the scale invariance, the edges
and the heavy-tailed gradients of photographs, and were shown to train image representations (Baradad
et al., *Learning to See by Looking at Noise*, NeurIPS 2021) and restoration networks (Achddou et al.,
*Synthetic Images as a Regularity Prior*, SSVM 2021).
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch.utils.data import Dataset

__all__ = ["DeadLeaves", "dead_leaves"]


class DeadLeaves(Dataset[torch.Tensor]):
    """A map-style dataset of dead-leaves images; item `i` depends on `(seed, i, size)` alone.

    Args:
        length: number of images.
        size: side in pixels.
        seed: seed of the whole set.

    Each item is a float32 tensor `(3, size, size)` in [-1, 1]. Raises `IndexError` outside the set
    and `ValueError` for a length or size below 1.

    ```python
    from equivae.data import DeadLeaves

    images = DeadLeaves(length=100, size=64, seed=0)
    assert images[7].shape == (3, 64, 64)
    ```
    """

    def __init__(self, length: int, size: int = 256, seed: int = 0) -> None:
        if length < 1 or size < 1:
            raise ValueError(f"length and size must be at least 1, got {length} and {size}")
        self.length = length
        self.size = size
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def fingerprint(self) -> str:
        """What the images depend on; no image is drawn."""
        return f"dead leaves 1 {self.length} {self.size} {self.seed}"

    def __getitem__(self, index: int) -> torch.Tensor:
        if index < 0:
            index += self.length
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} is outside a set of {self.length} images")
        image = _draw(np.random.default_rng([self.seed, index]), self.size)
        return rearrange(torch.from_numpy(image), "h w c -> c h w").mul(2).sub(1).contiguous()


def dead_leaves(count: int, size: int = 256, seed: int = 0) -> torch.Tensor:
    """`count` dead-leaves images as one float32 tensor `(count, 3, size, size)` in [-1, 1].

    ```python
    images = equivae.data.dead_leaves(4, size=64, seed=0)
    assert images.shape == (4, 3, 64, 64)
    ```
    """
    images = DeadLeaves(count, size, seed)
    return torch.stack([images[i] for i in range(count)])


def _draw(rng: np.random.Generator, size: int) -> np.ndarray:
    """One image `(size, size, 3)`, float32 in [0, 1], painted back to front."""
    palette = _colours(rng, 12)
    noise = _pink_noise(rng, size)
    canvas = np.empty((size, size, 3), dtype=np.float32)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    canvas[:] = _fill(rng, palette, noise, rows, columns, 0.0, 0.0, float(size))

    smallest, largest = max(1.0, size / 128), size / 2.5
    # Sizes between a uniform and a power law: pure power laws bury the large shapes at this count.
    exponent = rng.uniform(0.8, 2.0)
    u = rng.random(rng.integers(120, 420))
    power = 1 - exponent if abs(1 - exponent) > 1e-3 else 1e-3
    radii = (smallest**power + u * (largest**power - smallest**power)) ** (1 / power)
    softness = np.float32(rng.uniform(0.5, 1.2))  # the edge's width in pixels
    for radius in radii:
        _paint_leaf(rng, canvas, palette, noise, float(radius), softness)

    contrast, brightness = rng.uniform(0.7, 1.2), rng.uniform(-0.1, 0.1)
    canvas = (canvas - 0.5) * contrast + 0.5 + brightness
    if rng.random() < 0.5:
        canvas += rng.normal(0.0, rng.uniform(0.0, 0.03), canvas.shape).astype(np.float32)
    return np.clip(canvas, 0.0, 1.0).astype(np.float32)


def _colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """Colours as in photographs: luminance varies most, hue clusters around a scene's tint."""
    luma = rng.beta(1.1, 1.3, (count, 1))
    tint = rng.normal(0.0, 0.06, (1, 3))
    chroma = tint + rng.normal(0.0, rng.uniform(0.02, 0.18), (count, 3))
    chroma -= chroma.mean(axis=1, keepdims=True)
    return np.clip(luma + chroma, 0.0, 1.0).astype(np.float32)


def _pink_noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """A tileable `1/f^a` field `(size, size)` of unit variance, the texture of stone, bark and cloud."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)).astype(np.float32))
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1.0
    spectrum *= radius ** -rng.uniform(0.6, 1.6)
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(size, size))
    return np.asarray(field / max(float(field.std()), 1e-6), dtype=np.float32)


def _fill(
    rng: np.random.Generator,
    palette: np.ndarray,
    noise: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    cy: float,
    cx: float,
    radius: float,
) -> np.ndarray:
    """The inside of a leaf: a colour with shading, and a grating, grain or nothing on top."""
    colour = palette[rng.integers(len(palette))] + rng.normal(0.0, 0.04, 3)
    angle = rng.uniform(0.0, 2 * np.pi)
    slope = rng.normal(0.0, 0.18) / radius
    along = np.float32(np.cos(angle)) * (columns - np.float32(cx))
    along += np.float32(np.sin(angle)) * (rows - np.float32(cy))
    value = np.float32(slope) * along
    kind = rng.random()
    if kind < 0.45:
        dy, dx = rng.integers(noise.shape[0], size=2)
        iy = (rows.astype(np.int32) + dy) % noise.shape[0]
        ix = (columns.astype(np.int32) + dx) % noise.shape[1]
        value = value + np.float32(rng.uniform(0.02, 0.16)) * noise[iy, ix]
    elif kind < 0.65:
        period = rng.uniform(3.0, max(8.0, radius))
        wave = np.sin(np.float32(2 * np.pi / period) * along + np.float32(rng.uniform(0, 6.28)))
        if rng.random() < 0.4:
            wave = np.clip(wave * np.float32(4.0), -1.0, 1.0)  # stripes
        value = value + np.float32(rng.uniform(0.03, 0.25)) * wave
    filled: np.ndarray = colour.astype(np.float32) + value[..., None]
    return filled


def _paint_leaf(
    rng: np.random.Generator,
    canvas: np.ndarray,
    palette: np.ndarray,
    noise: np.ndarray,
    radius: float,
    softness: np.float32,
) -> None:
    size = canvas.shape[0]
    cy, cx = rng.uniform(0.0, size, 2)
    reach = radius * 1.5 + 2
    top, left = max(0, int(cy - reach)), max(0, int(cx - reach))
    bottom, right = min(size, int(cy + reach) + 1), min(size, int(cx + reach) + 1)
    if bottom <= top or right <= left:
        return
    rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
    y, x = rows - np.float32(cy), columns - np.float32(cx)
    angle, aspect = rng.uniform(0.0, np.pi), rng.uniform(0.25, 1.0)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    a, b = c * x + s * y, c * y - s * x
    shape = rng.random()
    if shape < 0.45:  # ellipse
        distance = (np.sqrt(a * a + (b / aspect) ** 2) - radius) * np.float32(aspect)
    elif shape < 0.75:  # rectangle
        distance = np.maximum(np.abs(a) - radius, np.abs(b) - radius * aspect)
    else:  # triangle or other polygon: an intersection of half planes
        distance = np.full_like(a, -np.inf)
        corners = int(rng.integers(3, 7))
        for k in range(corners):
            turn = 2 * np.pi * k / corners + rng.normal(0.0, 0.2)
            normal_distance = np.float32(np.cos(turn)) * a + np.float32(np.sin(turn)) * b
            distance = np.maximum(distance, normal_distance - np.float32(radius * 0.75))
    alpha = np.clip(np.float32(0.5) - distance / softness, 0.0, 1.0)[..., None]
    patch = canvas[top:bottom, left:right]
    patch += alpha * (
        _fill(rng, palette, noise, rows, columns, float(cy), float(cx), radius) - patch
    )
