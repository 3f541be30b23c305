"""Latents as pipelines hold them: their scaling, and transforms of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from equivae.autoencoder.view import Autoencoder
from equivae.errors import InputError
from equivae.transforms import Transform, resolve_transforms

__all__ = ["scale_latents", "scales_by_itself", "transform_latents", "unscale_latents"]


def transform_latents(
    latents: Tensor,
    transform: str | Transform,
    vae: nn.Module | Autoencoder,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Transform latents as they lie in a pipeline or in a trainer's cache, scaled and shifted.

    The scaling is undone, the latent op applied, and the scaling done again, so that every latent op means
    what it means to the VAE: a fitted one adds a bias, which a scaled latent would get at the wrong size.

    Args:
        latents: `(B, c, h, w)` as `scale_latents` gives them and the VAE's diffusers pipelines hold them:
            `(z - shift_factor) * scaling_factor`, or `(z - latents_mean) * scaling_factor / latents_std`
            where the config has means and deviations per channel. Packed latents (FLUX) have to be
            unpacked first.
        transform: a transform or its name; one, not a group.
        vae: the VAE that the latents belong to, for its config and its factor.
        generator: makes the draw of a random transform repeatable.

    Returns latents of the same dtype, scaled as those given. Raises `InputError` for an unknown transform
    and for latents of another shape than the VAE's.

    ```python
    import torch

    import equivae

    vae = equivae.zoo.load()
    cached = equivae.scale_latents(equivae.Autoencoder(vae).encode(torch.rand(2, 3, 64, 64)), vae)
    flipped = equivae.transform_latents(cached, "hflip", vae)
    assert torch.allclose(flipped, cached.flip(-1), atol=1e-6)
    ```
    """
    wanted = resolve_transforms(transform)
    if len(wanted) != 1:
        raise InputError(
            f"transform_latents applies one transform, {transform!r} stands for {len(wanted)}; pick one of "
            f"{', '.join(t.name for t in wanted)}."
        )
    module = _module(vae)
    factor, channels = _grid(vae)
    if latents.ndim < 4 or latents.shape[1] != channels:
        raise InputError(
            f"latents of shape {tuple(latents.shape)} are none of {type(module).__name__}, whose are "
            f"(B, {channels}, h, w); unpack packed latents first."
        )
    fixed = wanted[0].at_factor(factor).draw(latents.shape[0], generator)
    scaling = _Scaling.of(module)
    moved = fixed.latent(scaling.unscale(latents.float()))
    return scaling.scale(moved).to(latents.dtype)


def scale_latents(latents: Tensor, vae: nn.Module | Autoencoder) -> Tensor:
    """What a pipeline makes of the latents that `encode` returns: the diffusion model's own range.

    Args:
        latents: `(B, c, h, w)` as `Autoencoder.encode` returns them.
        vae: its config holds the numbers. A VAE that has none, or that scales in `encode` already, leaves
            the latents as they are.
    """
    return _Scaling.of(_module(vae)).scale(latents)


def unscale_latents(latents: Tensor, vae: nn.Module | Autoencoder) -> Tensor:
    """The inverse of `scale_latents`: what `decode` takes."""
    return _Scaling.of(_module(vae)).unscale(latents)


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
class _Scaling:
    """`(z - mean) * factor / std`; mean and std are numbers, or tensors `(c,)`."""

    factor: float
    mean: Any
    std: Any

    @classmethod
    def of(cls, vae: nn.Module) -> _Scaling:
        config = getattr(vae, "config", None)
        if scales_by_itself(vae):
            return cls(1.0, 0.0, 1.0)
        factor = getattr(config, "scaling_factor", None) or 1.0
        mean, std = (_per_channel(vae, name) for name in ("latents_mean", "latents_std"))
        if mean is not None and std is not None:
            return cls(
                float(factor),
                torch.as_tensor(mean, dtype=torch.float32).flatten(),
                torch.as_tensor(std, dtype=torch.float32).flatten(),
            )
        return cls(float(factor), float(getattr(config, "shift_factor", None) or 0.0), 1.0)

    def scale(self, z: Tensor) -> Tensor:
        scaled: Tensor = (z - self._like(self.mean, z)) * self.factor / self._like(self.std, z)
        return scaled

    def unscale(self, z: Tensor) -> Tensor:
        latents: Tensor = z / self.factor * self._like(self.std, z) + self._like(self.mean, z)
        return latents

    @staticmethod
    def _like(value: Any, z: Tensor) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(z.device, z.dtype).view(1, -1, *[1] * (z.ndim - 2))


def scales_by_itself(vae: nn.Module) -> bool:
    """Whether `encode` and `decode` scale already, as those of diffusers' AutoencoderRAE do."""
    return hasattr(vae, "_normalize_latents")


def _per_channel(vae: nn.Module, name: str) -> Any:
    """From the config, or from a buffer, where the LTX classes keep it."""
    noted = getattr(getattr(vae, "config", None), name, None)
    return dict(vae.named_buffers(recurse=False)).get(name) if noted is None else noted
