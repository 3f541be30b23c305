"""Latents as pipelines hold them: their scaling, and transforms of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder.checks import check_transforms
from equivae.autoencoder.conventions import convention_of, scales_by_itself
from equivae.autoencoder.doubt import check_scaling_is_known, doubt_of
from equivae.autoencoder.geometry import LAYOUTS, Layout
from equivae.autoencoder.view import Autoencoder
from equivae.errors import InputError
from equivae.latent_scaling import LatentScaling
from equivae.transforms import Transform, resolve_transforms

__all__ = [
    "LatentScaling",
    "scale_latents",
    "scales_by_itself",
    "scaling_of",
    "transform_latents",
    "unscale_latents",
]

_SHAPES = {5: "c, t, h, w", 4: "c, h, w", 3: "c, t"}


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
        latents: `(B, c, h, w)`, `(B, c, t, h, w)` or `(B, c, t)`, or one without the batch axis, as
            `scale_latents` gives them and the VAE's diffusers pipelines hold them. Packed latents
            (sequences, as FLUX and LTX make of them) have to be unpacked first.
        transform: a transform or its name; one, not a group.
        vae: the VAE that the latents belong to, for its numbers and its factor.
        scaled: instead of a VAE, how latents `(B, c, h, w)` or `(c, h, w)` are scaled, as numbers:
            `LatentScaling(0.3611, 0.1159)`, or the factor alone. `1.0` is for latents as `encode` returns
            them. A transform that depends on the factor has to be placed on one by hand.
        generator: makes the draw of a random transform repeatable.

    Returns latents of the same dtype, scaled as those given. Raises `InputError` for an unknown transform,
    for one that moves an uneven axis (time, of a causal video VAE), for latents of another shape than the
    VAE's, for a VAE whose scaling was guessed, and unless one of `vae` and `scaled` is given.

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
    _require_tensor(latents)
    if (vae is None) == (scaled is None):
        raise InputError(
            "transform_latents has to know how the latents are scaled: pass their VAE, or scaled=factor or "
            "scaled=LatentScaling(factor, shift), one of them."
        )
    if vae is None:
        scaling = scaled if isinstance(scaled, LatentScaling) else LatentScaling(float(scaled or 0))
        return _by_numbers(latents, wanted[0], scaling, generator)
    return _by_convention(latents, wanted, vae, generator)


def _by_numbers(
    latents: Tensor,
    transform: Transform,
    scaling: LatentScaling,
    generator: torch.Generator | None,
) -> Tensor:
    if latents.ndim not in (3, 4):
        raise InputError(
            "latents that are scaled by numbers are (B, c, h, w) or (c, h, w); got "
            f"{tuple(latents.shape)}."
        )
    batch = latents.unsqueeze(0) if latents.ndim == 3 else latents
    drawn = transform.draw(batch.shape[0], generator)
    moved = scaling.scale(drawn.latent(scaling.unscale(batch.float()))).to(latents.dtype)
    return moved if batch is latents else moved.squeeze(0)


def _by_convention(
    latents: Tensor,
    wanted: list[Transform],
    vae: nn.Module | Autoencoder,
    generator: torch.Generator | None,
) -> Tensor:
    view = vae if isinstance(vae, Autoencoder) else Autoencoder(vae)
    check_scaling_is_known(view.module, "for latents as a pipeline holds them")
    convention = convention_of(view.module)
    channels = convention.channels(view.module, view.latent_channels)
    rank = LAYOUTS[view.layout][0]
    batch = _batched(latents, rank, channels)
    if batch is None or batch.shape[1] != channels:
        raise InputError(
            f"latents of shape {tuple(latents.shape)} are none of {type(view.module).__name__}, whose are "
            f"(B, {_SHAPES[rank].replace('c', str(channels))}); unpack packed latents first."
        )
    layout: Layout = "image" if view.layout == "video" and batch.ndim == 4 else view.layout
    check_transforms(wanted, layout, view, batch.shape[0])
    fixed = view.place(wanted[0]).draw(batch.shape[0], generator)
    moved = fixed.latent(convention.unscale(view.module, batch.float()))
    scaled = convention.scale(view.module, moved).to(latents.dtype)
    return scaled if batch is latents else scaled.squeeze(0)


def scaling_of(vae: nn.Module | Autoencoder, channels: int | None = None) -> LatentScaling | None:
    """The numbers by which a VAE's pipelines scale its latents, where each channel has one of each.

    Read off what the VAE's convention makes of zeros and of ones. `None` where the numbers depend on more
    than the channel, or were guessed.

    Args:
        vae: holds the numbers.
        channels: of its latents, where they are known; else the VAE is asked.

    ```python
    import equivae
    from equivae.autoencoder.scaling import scaling_of

    print(scaling_of(equivae.zoo.load()))
    ```
    """
    view = vae if isinstance(vae, Autoencoder) else Autoencoder(vae)
    vae, channels = view.module, channels or _channels(view.module) or view.latent_channels
    if doubt_of(vae) is not None:
        return None
    convention = convention_of(vae)
    zeros = torch.zeros(1, channels, 1, 1)
    try:
        low, high = (convention.scale(vae, zeros + value).float() for value in (0.0, 1.0))
    except (InputError, RuntimeError):
        return None
    if low.shape != zeros.shape:
        return None
    slope = (high - low).flatten()
    shift = (-low.flatten() / slope).tolist()
    return LatentScaling(1.0, tuple(shift), tuple((1 / slope).tolist()))


def scale_latents(latents: Tensor, vae: nn.Module | Autoencoder) -> Tensor:
    """What a pipeline makes of the latents that `encode` returns: the diffusion model's own range.

    `(z - shift_factor) * scaling_factor`, or `(z - latents_mean) * scaling_factor / latents_std` where the
    VAE has means and deviations per channel, per channel and frame (Cosmos) or per channel and frequency
    (the audio of LTX-2). FLUX.2's are cut into patches of 2x2 cells, `(B, 4 c, h / 2, w / 2)`, and
    normalised by the statistics of its batch norm. Cosmos' pipelines multiply by the `sigma_data` of their
    scheduler on top, which is none of the VAE's.

    Args:
        latents: `(B, c, h, w)`, `(B, c, t, h, w)` or `(B, c, t)` as `Autoencoder.encode` returns them, or one
            without the batch axis.
        vae: holds the numbers. A VAE that has none, or that scales in `encode` already, leaves the latents
            as they are; `register_latent_convention` teaches another convention.

    Raises `InputError` if latents are not a tensor of floats or do not fit the numbers, and for a VAE
    from a single file that does not say which numbers are its own.
    """
    return _changed(latents, vae, "scale")


def unscale_latents(latents: Tensor, vae: nn.Module | Autoencoder) -> Tensor:
    """The inverse of `scale_latents`: what `decode` takes."""
    return _changed(latents, vae, "unscale")


def _changed(latents: Tensor, vae: nn.Module | Autoencoder, way: str) -> Tensor:
    _require_tensor(latents)
    module = vae.module if isinstance(vae, Autoencoder) else vae
    check_scaling_is_known(module, "for latents as a pipeline holds them")
    convention = convention_of(module)
    change = getattr(convention, way)
    if convention.pointwise:
        return change(module, latents)  # type: ignore[no-any-return]
    rank = _rank(module, latents)
    channels = _channels(module)
    if channels is not None and way == "unscale":
        channels = convention.channels(module, channels)
    batch = _batched(latents, rank, channels)
    if batch is None:
        raise InputError(
            f"latents of shape {tuple(latents.shape)} are none of {type(module).__name__}, whose are "
            f"(B, {_SHAPES[rank]}); unpack packed latents first."
        )
    changed: Tensor = change(module, batch)
    return changed if batch is latents else changed.squeeze(0)


def _require_tensor(latents: Any) -> None:
    if not isinstance(latents, Tensor):
        kind = f"{type(latents).__module__.partition('.')[0]} {type(latents).__name__}"
        raise InputError(
            f"latents must be a torch tensor, got a {kind.removeprefix('builtins ')}; use "
            "torch.from_numpy(latents) for an array, and .numpy() on what comes back."
        )
    if not latents.is_floating_point():
        raise InputError(
            f"latents must be floating point, got {latents.dtype}; use latents.float()."
        )


def _batched(latents: Tensor, rank: int, channels: int | None) -> Tensor | None:
    """The latents themselves, or one with a batch axis; `None` for what can be neither.

    A video VAE has latents of single images as well, `(B, c, h, w)`, of the rank of one video's.
    """
    if latents.ndim == rank:
        return latents
    if latents.ndim != rank - 1:
        return None
    if rank == 5 and (channels is None or latents.shape[1] == channels):
        return latents
    return latents.unsqueeze(0) if channels in (None, latents.shape[0]) else None


def _rank(module: nn.Module, latents: Tensor) -> int:
    """That of a batch of latents, by the kinds of convolution; without any, that of those given."""
    kinds = ((nn.Conv3d, 5), (nn.Conv2d, 4), (nn.Conv1d, 3))
    parts = list(module.modules())
    found = [rank for kind, rank in kinds if any(isinstance(part, kind) for part in parts)]
    return found[0] if found else latents.ndim


def _channels(module: nn.Module) -> int | None:
    config = getattr(module, "config", None)
    found = [getattr(config, name, None) for name in ("latent_channels", "z_dim")]
    return next((count for count in found if isinstance(count, int)), None)
