"""`evaluate`: measure a VAE, on its own or against another."""

from __future__ import annotations

import random
from pathlib import Path

from torch import nn

from equivae.autoencoder import Autoencoder, check_resolution
from equivae.data.sources import ImagesLike, load_images
from equivae.errors import InputError
from equivae.evaluation.metrics import measure
from equivae.evaluation.report import Report
from equivae.pretrained import load_vae
from equivae.transforms import resolve_transforms
from equivae.transforms.groups import TransformsLike

__all__ = ["evaluate"]


def evaluate(
    vae: nn.Module | str | Path,
    images: ImagesLike,
    transforms: TransformsLike = "rot180",
    *,
    baseline: nn.Module | str | Path | None = None,
    resolution: int | None = None,
    eval_batch_size: int = 4,
    max_samples: int | None = None,
    seed: int = 0,
    panels: int = 2,
    progress: bool = True,
) -> Report:
    """Measure reconstruction and equivariance of a VAE.

    Args:
        vae: a diffusers autoencoder or any module with the same calls, or where to load one from.
        images: anything that `equivae.data.load_images` takes; a tensor `(N, C, H, W)` in [-1, 1].
        transforms: names, groups, transforms or a list of those.
        baseline: another VAE to compare with, shown as "before".
        resolution: resize and centre-crop to this side in pixels; `None` takes images as they are.
        eval_batch_size: images per encoder and decoder call.
        max_samples: measure so many images, drawn at random with `seed`, instead of all.
        seed: of that draw.
        panels: how many images are pictured, evenly spaced.
        progress: show a progress bar.

    Returns a `Report`; errors are in [0, 1] units after clamping. Raises `InputError` for an unknown
    transform, no images, or images that the VAE cannot take.

    ```python
    import equivae

    images = equivae.data.dead_leaves(2, size=64)
    report = equivae.evaluate(equivae.zoo.load(), images, transforms=["rot180", "hflip"])
    assert set(report.metrics.transforms) == {"rot180", "hflip"}
    ```
    """
    wanted = resolve_transforms(transforms)
    if eval_batch_size < 1:
        raise InputError(f"eval_batch_size must be at least 1, got {eval_batch_size}.")
    autoencoder = Autoencoder(load_vae(vae))
    check_resolution(resolution, autoencoder)
    dataset = load_images(images, resolution=resolution, channels=autoencoder.image_channels)
    if max_samples is not None and max_samples < len(dataset):
        if max_samples < 1:
            raise InputError(f"max_samples must be at least 1, got {max_samples}.")
        dataset = dataset.subset(random.Random(seed).sample(range(len(dataset)), max_samples))
    options = {"batch_size": eval_batch_size, "panels": panels, "progress": progress}
    metrics, pictures = measure(autoencoder, dataset, wanted, **options)  # type: ignore[arg-type]
    report = Report(
        metrics,
        panels=pictures,
        skipped=dataset.skipped,
        settings={
            "vae": _describe(vae),
            "images": str(images) if isinstance(images, (str, Path)) else len(dataset),
            "resolution": resolution or "as they are",
            "seed": seed,
        },
    )
    if baseline is not None:
        other = Autoencoder(load_vae(baseline))
        if not isinstance(baseline, nn.Module):
            other.module.to(autoencoder.device)
        report.before, report.panels_before = measure(other, dataset, wanted, **options)  # type: ignore[arg-type]
        report.settings["baseline"] = _describe(baseline)
    return report


def _describe(vae: nn.Module | str | Path) -> str:
    return type(vae).__name__ if isinstance(vae, nn.Module) else str(vae)
