"""The units of every number: images in [0, 1] after clamping, errors as their MSE, PSNR with peak 1."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["psnr", "unit"]


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of an error in [0, 1] units (peak 1): `-10 log10(MSE)`."""
    return -10 * math.log10(mse) if mse > 0 else math.inf


def unit(images: Tensor) -> Tensor:
    """From [-1, 1] to [0, 1], clamped, in float32."""
    return images.float().clamp(-1, 1).add(1).div(2)
