"""How pipelines hold the latents of each kind of VAE: a registry of conventions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from equivae.autoencoder.probe import has_frames
from equivae.errors import InputError

__all__ = [
    "LatentConvention",
    "convention_of",
    "register_latent_convention",
    "scales_by_itself",
]

Change = Callable[[nn.Module, Tensor], Tensor]


def _same(vae: nn.Module, latents: Tensor) -> Tensor:
    return latents


@dataclass(frozen=True)
class LatentConvention:
    """What a pipeline makes of the latents that `encode` returns, and back.

    Attributes:
        name: what it is called in messages and docs.
        applies: says whether a VAE's pipelines hold their latents so.
        scale: `(vae, latents) -> latents` as the pipeline holds them, of latents with a batch axis.
        unscale: its inverse.
        channels: `(vae, channels) -> channels`, how many the pipeline's latents have for the VAE's.
        pointwise: whether every value is scaled alike, so that latents of any shape can be.
    """

    name: str
    applies: Callable[[nn.Module], bool]
    scale: Change
    unscale: Change
    channels: Callable[[nn.Module, int], int] = lambda vae, channels: channels
    pointwise: bool = False


_CONVENTIONS: list[LatentConvention] = []


def register_latent_convention(convention: LatentConvention) -> None:
    """Teach `scale_latents` and `transform_latents` how the pipelines of another VAE hold its latents.

    It stands above those that were registered before. Built in are: one factor and shift for all (Stable
    Diffusion, FLUX.1), numbers per channel (Wan, LTX), per channel and frame (Cosmos), per channel and
    frequency (the audio of LTX-2), a batch norm on patches of 2x2 cells (FLUX.2), and VAEs that scale in
    `encode` (RAE).

    ```python
    import equivae
    from equivae.autoencoder import LatentConvention, register_latent_convention

    register_latent_convention(
        LatentConvention(
            "squashed",
            applies=lambda vae: type(vae).__name__ == "MyCodec",
            scale=lambda vae, latents: latents.tanh(),
            unscale=lambda vae, latents: latents.atanh(),
        )
    )
    ```
    """
    _CONVENTIONS.insert(0, convention)


def convention_of(vae: nn.Module) -> LatentConvention:
    """The convention of a VAE's pipelines; one without any numbers leaves latents as they are."""
    return next(convention for convention in _CONVENTIONS if convention.applies(vae))


def scales_by_itself(vae: nn.Module) -> bool:
    """Whether `encode` and `decode` scale already, as those of diffusers' AutoencoderRAE do."""
    return hasattr(vae, "_normalize_latents")


# (z - mean) * factor / std, with numbers that the config or the buffers hold ----------------------


@dataclass(frozen=True)
class _Numbers:
    """What `(z - mean) * factor / std` takes; mean and std are numbers, or tensors that broadcast."""

    factor: float
    mean: Any
    std: Any

    def scale(self, z: Tensor) -> Tensor:
        scaled: Tensor = (z - self.mean) * self.factor / self.std
        return scaled

    def unscale(self, z: Tensor) -> Tensor:
        latents: Tensor = z / self.factor * self.std + self.mean
        return latents


def _affine(
    name: str,
    applies: Callable[[nn.Module], bool],
    numbers: Callable[[nn.Module, Tensor], _Numbers],
    pointwise: bool = False,
) -> LatentConvention:
    return LatentConvention(
        name,
        applies,
        lambda vae, z: numbers(vae, z).scale(z),
        lambda vae, z: numbers(vae, z).unscale(z),
        pointwise=pointwise,
    )


def _option(vae: nn.Module, name: str) -> Any:
    return getattr(getattr(vae, "config", None), name, None)


def _factor(vae: nn.Module) -> float:
    return float(_option(vae, "scaling_factor") or 1.0)


def _noted(vae: nn.Module, name: str) -> Tensor | None:
    """From the config, or from a buffer, where the LTX classes keep it."""
    found = _option(vae, name)
    if found is None and not hasattr(getattr(vae, "config", None), name):
        found = getattr(vae, name, None)
    if found is None:
        return None
    return torch.as_tensor(found, dtype=torch.float32).flatten()


def _has_means(vae: nn.Module) -> bool:
    return all(_noted(vae, name) is not None for name in ("latents_mean", "latents_std"))


def _means(vae: nn.Module, z: Tensor, shape: Callable[[Tensor], Tensor]) -> _Numbers:
    """The noted means and deviations, each brought to a shape that broadcasts with the latents."""
    found = []
    for name in ("latents_mean", "latents_std"):
        noted = _noted(vae, name)
        assert noted is not None
        found.append(shape(noted.to(z.device)).to(z.dtype))
    return _Numbers(_factor(vae), *found)


def _scalar(vae: nn.Module, z: Tensor) -> _Numbers:
    return _Numbers(_factor(vae), float(_option(vae, "shift_factor") or 0.0), 1.0)


def _per_channel(vae: nn.Module, z: Tensor) -> _Numbers:
    def shape(noted: Tensor) -> Tensor:
        if len(noted) != z.shape[1]:
            raise InputError(
                f"latents of shape {tuple(z.shape)} have {z.shape[1]} channels, and {type(vae).__name__} "
                f"has a mean for each of {len(noted)}; pass latents (B, {len(noted)}, ...)."
            )
        return noted.view(1, -1, *[1] * (z.ndim - 2))

    return _means(vae, z, shape)


def _has_means_of_frames(vae: nn.Module) -> bool:
    """Cosmos: 16 means for every channel, one for each latent frame."""
    noted, channels = _noted(vae, "latents_mean"), _option(vae, "latent_channels")
    if noted is None or not channels or not _has_means(vae) or not has_frames(vae):
        return False
    return bool(len(noted) > channels and len(noted) % channels == 0)


def _per_frame(vae: nn.Module, z: Tensor) -> _Numbers:
    channels, frames = _option(vae, "latent_channels"), 1 if z.ndim == 4 else z.shape[2]

    def shape(noted: Tensor) -> Tensor:
        table = noted.view(1, channels, -1)
        if z.shape[1] != channels or frames > table.shape[2]:
            raise InputError(
                f"latents of shape {tuple(z.shape)} have {z.shape[1]} channels and {frames} frames, and "
                f"{type(vae).__name__} has means for {channels} channels and {table.shape[2]} frames; pass "
                "as many channels, and no more frames at once."
            )
        return table[:, :, :frames].reshape(1, channels, *[frames] * (z.ndim - 4), 1, 1)

    return _means(vae, z, shape)


def _has_means_of_bins(vae: nn.Module) -> bool:
    """The audio of LTX-2, whose pipeline scales `(B, t, c * bins)`."""
    return hasattr(vae, "mel_compression_ratio") and _has_means(vae)


def _per_bin(vae: nn.Module, z: Tensor) -> _Numbers:
    def shape(noted: Tensor) -> Tensor:
        if z.ndim != 4 or z.shape[1] * z.shape[3] != len(noted):
            raise InputError(
                f"latents of shape {tuple(z.shape)} have {z.shape[1]} channels of {z.shape[-1]} frequencies, "
                f"and {type(vae).__name__} has {len(noted)} means, one for each; pass latents "
                "(B, c, t, frequencies) of the length that its pipeline takes."
            )
        return noted.view(1, z.shape[1], 1, z.shape[3])

    return _means(vae, z, shape)


# A batch norm on patches --------------------------------------------------------------------------


def _patch(vae: nn.Module) -> tuple[int, int]:
    height, width = _option(vae, "patch_size")
    return int(height), int(width)


def _has_patch_norm(vae: nn.Module) -> bool:
    """FLUX.2: running statistics of patches of latent cells, in a batch norm that no call uses."""
    norm, channels = getattr(vae, "bn", None), _option(vae, "latent_channels")
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or not channels:
        return False
    size = _option(vae, "patch_size")
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        return False
    return bool(norm.num_features == channels * size[0] * size[1])


def _patch_numbers(vae: Any, z: Tensor) -> _Numbers:
    mean, variance = (t.to(z).view(1, -1, 1, 1) for t in (vae.bn.running_mean, vae.bn.running_var))
    epsilon = _option(vae, "batch_norm_eps")
    return _Numbers(1.0, mean, torch.sqrt(variance + (vae.bn.eps if epsilon is None else epsilon)))


def _scale_patches(vae: nn.Module, z: Tensor) -> Tensor:
    (tall, wide), channels = _patch(vae), _option(vae, "latent_channels")
    if z.ndim != 4 or z.shape[1] != channels or z.shape[2] % tall or z.shape[3] % wide:
        raise InputError(
            f"latents of shape {tuple(z.shape)} are not (B, {channels}, h, w) with sides that divide by "
            f"{tall}x{wide}, the patches of {type(vae).__name__}; crop them."
        )
    packed = rearrange(z, "b c (h p) (w q) -> b (c p q) h w", p=tall, q=wide)
    return _patch_numbers(vae, packed).scale(packed)


def _unscale_patches(vae: nn.Module, z: Tensor) -> Tensor:
    (tall, wide), channels = _patch(vae), _option(vae, "latent_channels")
    if z.ndim != 4 or z.shape[1] != channels * tall * wide:
        raise InputError(
            f"latents of shape {tuple(z.shape)} are not (B, {channels * tall * wide}, h, w), patches of "
            f"{tall}x{wide} cells as the pipelines of {type(vae).__name__} hold them; unpack packed latents "
            "first."
        )
    plain = _patch_numbers(vae, z).unscale(z)
    return rearrange(plain, "b (c p q) h w -> b c (h p) (w q)", p=tall, q=wide)


for _convention in (
    _affine("one factor for all", lambda vae: True, _scalar, pointwise=True),
    _affine("per channel", _has_means, _per_channel),
    _affine("per channel and frequency", _has_means_of_bins, _per_bin),
    _affine("per channel and frame", _has_means_of_frames, _per_frame),
    LatentConvention(
        "batch norm on patches",
        _has_patch_norm,
        _scale_patches,
        _unscale_patches,
        channels=lambda vae, channels: channels * math.prod(_patch(vae)),
    ),
    LatentConvention("scaled in encode", scales_by_itself, _same, _same, pointwise=True),
):
    register_latent_convention(_convention)
