"""How a tool scales latents, as numbers, where there is no VAE to ask."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equivae.errors import InputError

__all__ = ["LatentScaling"]


@dataclass(frozen=True)
class LatentScaling:
    """How a tool scales the latents that `encode` returns: `(z - shift) * factor / std`.

    Args:
        factor: diffusers' `scaling_factor`.
        shift: `shift_factor`, or `latents_mean`, one number for every channel.
        std: `latents_std`, one number for every channel.

    Raises `InputError` for a factor or a deviation that is not positive, or numbers that are not finite.

    ```python
    import torch

    from equivae.autoencoder.latent_scaling import LatentScaling

    flux = LatentScaling(0.3611, 0.1159)
    z = torch.randn(2, 16, 8, 8)
    assert torch.allclose(flux.unscale(flux.scale(z)), z, atol=1e-5)
    ```
    """

    factor: float = 1.0
    shift: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        shift, std = torch.as_tensor(self.shift), torch.as_tensor(self.std)
        positive = self.factor > 0 and bool((std > 0).all())
        if not (positive and math.isfinite(self.factor) and bool(shift.isfinite().all())):
            raise InputError(
                "latents are scaled by a positive factor and positive deviations, got "
                f"factor={self.factor}, "
                f"shift={self.shift}, std={self.std}."
            )

    def scale(self, z: Tensor) -> Tensor:
        """From latents `(B, c, *grid)` as `encode` returns them."""
        scaled: Tensor = (z - _like(self.shift, z)) * self.factor / _like(self.std, z)
        return scaled

    def unscale(self, z: Tensor) -> Tensor:
        """Back to latents `(B, c, *grid)` as `decode` takes them."""
        latents: Tensor = z / self.factor * _like(self.std, z) + _like(self.shift, z)
        return latents


def _like(value: float | tuple[float, ...], z: Tensor) -> Any:
    if not isinstance(value, tuple):
        return value
    if len(value) != z.shape[1]:
        raise InputError(
            f"a scaling of {len(value)} channels does not fit latents of shape {tuple(z.shape)}."
        )
    return torch.tensor(value, dtype=z.dtype, device=z.device).view(1, -1, *[1] * (z.ndim - 2))
