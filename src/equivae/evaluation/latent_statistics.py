"""Mean and spread of a VAE's latents, and the scaling that they ask for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from equivae.autoencoder import Autoencoder, check_images, measuring
from equivae.data.sources import ImagesLike, collate, load_images
from equivae.errors import InputError
from equivae.files.pretrained import load_vae
from equivae.units import require_finite

__all__ = ["LatentStatistics", "latent_statistics"]


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


def latent_statistics(
    vae: nn.Module | str | Path,
    images: ImagesLike,
    *,
    resolution: int | None = None,
    max_samples: int | None = None,
    image_column: str | None = None,
    split: str = "train",
    background: str | tuple[int, int, int] = "white",
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
        image_column: as `split` and `background`, see `equivae.data.load_images`.
        eval_batch_size: images per encoder call.
        seed: of the posterior's draws.
        progress: show a progress bar.

    Raises `InputError` for no images, images that the VAE cannot take, latents that are not finite, and
    latents without any spread.

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
        image_column=image_column,
        split=split,
        background=background,
    )
    generator = torch.Generator().manual_seed(seed)
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    name = type(autoencoder.module).__name__
    loader = DataLoader(dataset, eval_batch_size, collate_fn=collate)  # type: ignore[arg-type]
    with measuring(autoencoder.module):
        for batch in tqdm(loader, desc="statistics", disable=not progress, leave=False):
            check_images(batch, autoencoder)
            moved = batch.to(autoencoder.device, autoencoder.dtype)
            z = autoencoder.encode(moved, sample=True, generator=generator)
            require_finite(z, f"the latents of {name}", "check its weights and its dtype")
            cells = z.double().cpu().transpose(0, 1).flatten(1)
            count += cells.shape[1]
            total, squares = total + cells.sum(1), squares + cells.square().sum(1)
    mean = total / count
    variance = (squares / count - mean.square()).clamp_min(0)
    overall = mean.mean()
    spread = (variance + (mean - overall).square()).mean().sqrt()
    if not float(spread) > 0:
        raise InputError(
            f"the latents of {name} have a standard deviation of "
            f"{float(spread)}, so there is no factor that brings them to 1; check the weights."
        )
    return LatentStatistics(
        mean=tuple(mean.tolist()),
        std=tuple(variance.sqrt().tolist()),
        overall_mean=float(overall),
        overall_std=float(spread),
        images=len(dataset),
    )
