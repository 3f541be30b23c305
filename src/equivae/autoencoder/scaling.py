"""Latents as pipelines hold them: their scaling, and transforms of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from equivae.autoencoder.view import Autoencoder
from equivae.errors import InputError
from equivae.transforms import Transform, resolve_transforms

__all__ = [
    "LatentScaling",
    "scale_latents",
    "scales_by_itself",
    "transform_latents",
    "unscale_latents",
]


def transform_latents(
    latents: Tensor,
    transform: str | Transform,
    vae: nn.Module | Autoencoder | None = None,
    *,
    scaled: LatentScaling | float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Transform latents as they lie in a pipeline or in a trainer's cache, scaled and shifted.

    The scaling is undone, the latent op applied, and the scaling done again, so that every latent op means
    what it means to the VAE: a fitted one adds a bias, which a scaled latent would get at the wrong size.

    Args:
        latents: `(B, c, h, w)`, or one of them `(c, h, w)`, as `scale_latents` gives them and the VAE's
            diffusers pipelines hold them: `(z - shift_factor) * scaling_factor`, or
            `(z - latents_mean) * scaling_factor / latents_std` where the config has means and deviations
            per channel. Packed latents (FLUX) have to be unpacked first.
        transform: a transform or its name; one, not a group.
        vae: the VAE that the latents belong to, for its config and its factor. Without it, `scaled` says
            how they are scaled, and a transform that counts pixels per cell has to know its factor.
        scaled: instead of a VAE, the scaling as numbers: `LatentScaling(0.3611, 0.1159)`, or the factor
            alone. `1.0` is for latents as `encode` returns them.
        generator: makes the draw of a random transform repeatable.

    Returns latents of the same dtype, one or a batch and scaled as those given. Raises `InputError` for an
    unknown transform, for latents of another shape than the VAE's, and unless one of `vae` and `scaled` is
    given.

    ```python
    import torch

    import equivae

    vae = equivae.zoo.load()
    cached = equivae.scale_latents(equivae.Autoencoder(vae).encode(torch.rand(2, 3, 64, 64)), vae)
    flipped = equivae.transform_latents(cached, "hflip", vae)
    assert torch.allclose(flipped, cached.flip(-1), atol=1e-6)
    one = equivae.transform_latents(cached[0], "hflip", scaled=vae.config.scaling_factor)
    assert torch.allclose(one, flipped[0], atol=1e-6)
    ```
    """
    wanted = resolve_transforms(transform)
    if len(wanted) != 1:
        raise InputError(
            f"transform_latents applies one transform, {transform!r} stands for {len(wanted)}; pick one of "
            f"{', '.join(t.name for t in wanted)}."
        )
    if (vae is None) == (scaled is None):
        raise InputError(
            "transform_latents has to know how the latents are scaled: pass their VAE, or scaled=factor or "
            "scaled=LatentScaling(factor, shift), one of them."
        )
    batch = latents
    if vae is None:
        scaling = scaled if isinstance(scaled, LatentScaling) else LatentScaling(float(scaled))  # type: ignore[arg-type]
        fixed = wanted[0]
        if latents.ndim < 3:
            raise InputError(
                "latents have a channel and two grid axes, (B, c, h, w) or (c, h, w); got "
                f"{tuple(latents.shape)}."
            )
        batch = latents.unsqueeze(0) if latents.ndim == 3 else latents
    else:
        factor, channels = _grid(vae)
        batch = latents.unsqueeze(0) if latents.ndim == 3 else latents
        if batch.ndim < 4 or batch.shape[1] != channels:
            raise InputError(
                f"latents of shape {tuple(latents.shape)} are none of {type(_module(vae)).__name__}, whose "
                f"are (B, {channels}, h, w) or (c, h, w); unpack packed latents first."
            )
        scaling = LatentScaling.of(_module(vae))
        fixed = wanted[0].at_factor(factor)
    fixed = fixed.draw(batch.shape[0], generator)
    moved = scaling.scale(fixed.latent(scaling.unscale(batch.float()))).to(latents.dtype)
    return moved.squeeze(0) if batch.ndim > latents.ndim else moved


def scale_latents(latents: Tensor, vae: nn.Module | Autoencoder) -> Tensor:
    """What a pipeline makes of the latents that `encode` returns: the diffusion model's own range.

    Args:
        latents: `(B, c, h, w)` as `Autoencoder.encode` returns them.
        vae: its config holds the numbers. A VAE that has none, or that scales in `encode` already, leaves
            the latents as they are.
    """
    return LatentScaling.of(_module(vae)).scale(latents)


def unscale_latents(latents: Tensor, vae: nn.Module | Autoencoder) -> Tensor:
    """The inverse of `scale_latents`: what `decode` takes."""
    return LatentScaling.of(_module(vae)).unscale(latents)


# A trainer transforms latents at every step; finding the grid takes an encode and a decode.
_GRIDS: WeakKeyDictionary[nn.Module, tuple[int, int]] = WeakKeyDictionary()


def _grid(vae: nn.Module | Autoencoder) -> tuple[int, int]:
    """Factor and latent channels, found once for every VAE."""
    module = _module(vae)
    if module not in _GRIDS:
        view = vae if isinstance(vae, Autoencoder) else Autoencoder(vae)
        _GRIDS[module] = (view.factor, view.latent_channels)
    return _GRIDS[module]


def _module(vae: nn.Module | Autoencoder) -> nn.Module:
    return vae.module if isinstance(vae, Autoencoder) else vae


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

    from equivae.autoencoder.scaling import LatentScaling

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
    def of(cls, vae: nn.Module) -> LatentScaling:
        """What the config of a VAE says; the identity where it says nothing or the VAE scales by itself."""
        config = getattr(vae, "config", None)
        if scales_by_itself(vae):
            return cls()
        factor = getattr(config, "scaling_factor", None) or 1.0
        mean, std = (_per_channel(vae, name) for name in ("latents_mean", "latents_std"))
        if mean is not None and std is not None:
            return cls(float(factor), _numbers(mean), _numbers(std))
        return cls(float(factor), float(getattr(config, "shift_factor", None) or 0.0))

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


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(torch.as_tensor(values, dtype=torch.float32).flatten().tolist())


def scales_by_itself(vae: nn.Module) -> bool:
    """Whether `encode` and `decode` scale already, as those of diffusers' AutoencoderRAE do."""
    return hasattr(vae, "_normalize_latents")


def _per_channel(vae: nn.Module, name: str) -> Any:
    """From the config, or from a buffer, where the LTX classes keep it."""
    noted = getattr(getattr(vae, "config", None), name, None)
    return dict(vae.named_buffers(recurse=False)).get(name) if noted is None else noted
