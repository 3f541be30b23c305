"""How a tool scales latents, as numbers, where there is no VAE to ask."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equivae.errors import InputError

__all__ = ["LatentScaling", "apply_scaled", "scaling_asked"]


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

    from equivae.latent_scaling import LatentScaling

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

    @classmethod
    def of(cls, content: dict[str, Any] | None) -> LatentScaling | None:
        """From the numbers as JSON holds them; `None` for none."""
        if content is None:
            return None
        numbers: Any = {n: tuple(v) if isinstance(v, list) else v for n, v in content.items()}
        return cls(**numbers)

    @property
    def does_nothing(self) -> bool:
        """Whether scaled latents are those that `encode` returns."""
        shift, std = torch.as_tensor(self.shift), torch.as_tensor(self.std)
        return self.factor == 1 and bool((shift == 0).all() and (std == 1).all())

    def scale(self, z: Tensor) -> Tensor:
        """From latents `(B, c, *grid)` as `encode` returns them."""
        scaled: Tensor = (z - _like(self.shift, z)) * self.factor / _like(self.std, z)
        return scaled

    def unscale(self, z: Tensor) -> Tensor:
        """Back to latents `(B, c, *grid)` as `decode` takes them."""
        latents: Tensor = z / self.factor * _like(self.std, z) + _like(self.shift, z)
        return latents


def scaling_asked(scaled: object, own: LatentScaling | None, name: str) -> LatentScaling:
    """A `LatentScaling`, that of a factor alone, or for `True` an op's own. `InputError` for anything else.

    Args:
        scaled: what was asked for.
        own: what the op's file says of its VAE.
        name: of the op.
    """
    if isinstance(scaled, LatentScaling):
        return scaled
    if isinstance(scaled, (int, float)) and not isinstance(scaled, bool):
        return LatentScaling(float(scaled))
    if scaled is not True:
        raise InputError(f"scaled is a LatentScaling, its factor, True or None, got {scaled!r}.")
    if own is None:
        raise InputError(
            f"latent op {name!r} cannot undo the scaling: its file does not say how its VAE scales latents; "
            "pass scaled=LatentScaling(factor, shift)."
        )
    return own


def apply_scaled(
    op: Callable[[Tensor], Tensor], latents: Tensor, scaling: LatentScaling, axes: int
) -> Tensor:
    """A latent op on scaled latents, `(B, c, *grid)` or one `(c, *grid)` of so many axes, in their dtype."""
    batch = latents if latents.ndim > axes + 1 else latents[None]
    moved = scaling.scale(op(scaling.unscale(batch.float()))).to(latents.dtype)
    return moved if batch is latents else moved[0]


def _like(value: float | tuple[float, ...], z: Tensor) -> Any:
    if not isinstance(value, tuple):
        return value
    if len(value) != z.shape[1]:
        raise InputError(
            f"a scaling of {len(value)} channels does not fit latents of shape {tuple(z.shape)}."
        )
    return torch.tensor(value, dtype=z.dtype, device=z.device).view(1, -1, *[1] * (z.ndim - 2))
