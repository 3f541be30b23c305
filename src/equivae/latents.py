"""Latents as pipelines hold them: their scaling, their statistics, and transforms of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from equivae.autoencoder import Autoencoder, check_images
from equivae.data.sources import ImagesLike, collate, load_images
from equivae.errors import InputError
from equivae.pretrained import load_vae
from equivae.transforms import Transform, resolve_transforms

__all__ = ["LatentStatistics", "latent_statistics", "scale_latents", "scales_by_itself"]
__all__ += ["transform_latents", "unscale_latents"]


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


# Statistics -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and spread of a VAE's latents, before any scaling.

    Attributes:
        mean: of each channel.
        std: of each channel.
        overall_mean: over all channels.
        overall_std: over all channels, around `overall_mean`.
        images: how many images they were measured on.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    overall_mean: float
    overall_std: float
    images: int

    @property
    def scaling_factor(self) -> float:
        """`1 / overall_std`, which brings the latents to unit variance (Stable Diffusion's convention)."""
        return 1.0 / self.overall_std

    @property
    def shift_factor(self) -> float:
        """`overall_mean`, which brings them to mean zero (the convention of SD3 and FLUX)."""
        return self.overall_mean

    def to_dict(self) -> dict[str, Any]:
        """Everything, the two factors among it, of JSON types."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return plain | {"scaling_factor": self.scaling_factor, "shift_factor": self.shift_factor}


@torch.no_grad()
def latent_statistics(
    vae: nn.Module | str | Path,
    images: ImagesLike,
    *,
    resolution: int | None = None,
    max_samples: int | None = None,
    eval_batch_size: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> LatentStatistics:
    """Mean and standard deviation of a VAE's latents, and the scaling and shift factor that they ask for.

    Posteriors are sampled, since a diffusion model learns from samples.

    Args:
        vae: a diffusers autoencoder or any module with the same calls, or where to load one from.
        images: anything that `equivae.data.load_images` takes.
        resolution: resize and centre-crop to this side in pixels.
        max_samples: use the first so many images only.
        eval_batch_size: images per encoder call.
        seed: of the posterior's draws.
        progress: show a progress bar.

    Raises `InputError` for no images, images that the VAE cannot take, and latents without any spread.

    ```python
    import equivae

    found = equivae.latent_statistics(equivae.zoo.load(), equivae.data.dead_leaves(4, size=64))
    print(found.scaling_factor, found.shift_factor, found.std)
    ```
    """
    from tqdm.auto import tqdm

    if eval_batch_size < 1:
        raise InputError(f"eval_batch_size must be at least 1, got {eval_batch_size}.")
    autoencoder = Autoencoder(load_vae(vae))
    dataset = load_images(
        images,
        resolution=resolution,
        channels=autoencoder.image_channels,
        max_samples=max_samples,
    )
    generator = torch.Generator().manual_seed(seed)
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    modes = [(part, part.training) for part in autoencoder.module.modules()]
    autoencoder.module.eval()
    try:
        loader = DataLoader(dataset, eval_batch_size, collate_fn=collate)  # type: ignore[arg-type]
        for batch in tqdm(loader, desc="statistics", disable=not progress, leave=False):
            check_images(batch, autoencoder)
            moved = batch.to(autoencoder.device, autoencoder.dtype)
            z = autoencoder.encode(moved, sample=True, generator=generator)
            cells = z.double().cpu().transpose(0, 1).flatten(1)
            count += cells.shape[1]
            total, squares = total + cells.sum(1), squares + cells.square().sum(1)
    finally:
        for part, training in modes:
            part.training = training
    mean = total / count
    variance = (squares / count - mean.square()).clamp_min(0)
    overall = mean.mean()
    spread = (variance + (mean - overall).square()).mean().sqrt()
    if not 0 < float(spread) < float("inf"):
        raise InputError(
            f"the latents of {type(autoencoder.module).__name__} have a standard deviation of "
            f"{float(spread)}, so there is no factor that brings them to 1; check the weights."
        )
    return LatentStatistics(
        mean=tuple(mean.tolist()),
        std=tuple(variance.sqrt().tolist()),
        overall_mean=float(overall),
        overall_std=float(spread),
        images=len(dataset),
    )
