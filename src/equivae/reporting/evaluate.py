"""`evaluate`: measure a VAE, on its own or against another."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Optional

from torch import nn

from equivae.autoencoder import Autoencoder, check_resolution
from equivae.data.names import display_name
from equivae.data.sources import ImageDataset, ImagesLike, load_images
from equivae.errors import InputError
from equivae.evaluation.features import BackboneLike, LpipsLike
from equivae.evaluation.latents import Latents
from equivae.evaluation.metrics import MeasureOptions, measure
from equivae.evaluation.sweeps import default_sweep_samples
from equivae.files.pretrained import load_vae
from equivae.options import BATCH, SEED, SIDE, at_least, check_value
from equivae.reporting.pictures import choose_images, picture
from equivae.reporting.report import Report
from equivae.transforms import resolve_transforms
from equivae.transforms.groups import TransformsLike

__all__ = ["choose_samples", "choose_sweep", "describe", "evaluate"]


def evaluate(
    vae: nn.Module | str | Path,
    images: ImagesLike,
    transforms: TransformsLike = "rot180",
    *,
    baseline: nn.Module | str | Path | None = None,
    resolution: int | None = None,
    eval_batch_size: int = 4,
    max_samples: int | None = None,
    image_column: str | None = None,
    split: str = "train",
    background: str | tuple[int, int, int] = "white",
    sweep_samples: int | None = None,
    reencode: bool = False,
    features: BackboneLike | None = None,
    lpips: LpipsLike | None = None,
    seed: int = 0,
    panels: int = 3,
    progress: bool = True,
) -> Report:
    """Measure reconstruction and equivariance of a VAE.

    Under `accelerate launch` or `torchrun` the images are shared out among the processes, and every
    process returns the whole report.

    Args:
        vae: a diffusers autoencoder or any module with the same calls, or where to load one from.
        images: anything that `equivae.data.load_images` takes; a tensor `(N, C, H, W)` in [-1, 1].
        transforms: names, groups, transforms or a list of those.
        baseline: another VAE to compare with, shown as "before".
        resolution: resize and centre-crop to this side in pixels; `None` takes images as they are.
        eval_batch_size: images per encoder and decoder call.
        max_samples: measure so many images, drawn at random with `seed`, instead of all.
        image_column: as `split` and `background`, see `equivae.data.load_images`.
        sweep_samples: images on which angles from 0° to 180° and scales from 0.25 to 1.5 are measured as
            well, 22 decodes for each; by default one in six of the images, at most four; 0 for none.
        reencode: measure re-encoding as well, `D(E(T(D(E(x)))))` against `T(x)`, and its time beside that of
            the latent op; a decode and an encode more for every transform.
        features: a backbone for feature cosine and rFID: a callable from images `(B, C, H, W)` in [0, 1]
            to features `(B, D)`, or `"inception"` (with `equivae[metrics]`).
        lpips: a perceptual distance: a callable from two batches of images in [0, 1] to distances `(B,)`,
            or `"alex"`, `"vgg"` or `"squeeze"` (with `equivae[metrics]`).
        seed: of that draw, of random transforms and of the bootstrap intervals.
        panels: how many images are pictured, from the best to the worst by round-trip error.
        progress: show a progress bar.

    Returns a `Report`; errors are in [0, 1] units after clamping. Raises `InputError` for an unknown
    transform, no images, images that the VAE cannot take, or a feature network that cannot be had.

    ```python
    import equivae

    images = equivae.data.dead_leaves(2, size=64)
    report = equivae.evaluate(equivae.zoo.load(), images, transforms=["rot180", "hflip"])
    assert set(report.metrics.transforms) == {"rot180", "hflip"}
    ```
    """
    wanted = resolve_transforms(transforms)
    autoencoder = Autoencoder(load_vae(vae))
    dataset = choose_samples(
        autoencoder,
        images,
        resolution,
        max_samples,
        eval_batch_size=eval_batch_size,
        seed=seed,
        image_column=image_column,
        split=split,
        background=background,
    )
    options = MeasureOptions(
        batch_size=eval_batch_size,
        sweep_samples=choose_sweep(sweep_samples, dataset),
        reencode=reencode,
        features=features,
        lpips=lpips,
        seed=seed,
        progress=progress,
    )
    settings: dict[str, Any] = {
        "vae": describe(vae),
        "images": display_name(images) if isinstance(images, (str, Path)) else len(dataset),
        "transforms": ",".join(t.name for t in wanted),
        "resolution": resolution or "as they are",
        "seed": seed,
    }
    other, before = None, None
    latents: Latents = {}
    if baseline is not None:
        other = Autoencoder(load_vae(baseline))
        if not isinstance(baseline, nn.Module):
            other.module.to(autoencoder.device)
        before = measure(other, dataset, wanted, options, label="before", keep_latents=latents)
        settings["baseline"] = describe(baseline)
    metrics = measure(autoencoder, dataset, wanted, options, baseline_latents=latents)
    chosen = choose_images(metrics, panels)
    return Report(
        metrics,
        before,
        panels=picture(autoencoder, dataset, chosen, wanted, seed),
        panels_before=[] if other is None else picture(other, dataset, chosen, wanted, seed),
        skipped=[*dataset.skipped, *dataset.replaced],
        settings=settings,
    )


def choose_samples(
    vae: Autoencoder,
    images: ImagesLike,
    resolution: int | None,
    max_samples: int | None,
    *,
    eval_batch_size: int,
    seed: int,
    **reading: Any,
) -> ImageDataset:
    """The images to measure on; `InputError` for options that make no sense, before anything is read.

    A source that draws random numbers gives the same images each time. `reading` goes to `load_images`.
    """
    check_value("eval_batch_size", eval_batch_size, int, range=BATCH)
    check_value("resolution", resolution, Optional[int], range=SIDE)
    check_value("max_samples", max_samples, Optional[int], range=at_least(1))
    check_value("seed", seed, int, range=SEED)
    check_resolution(resolution, vae)
    dataset = load_images(images, resolution=resolution, channels=vae.image_channels, **reading)
    if max_samples is not None and max_samples < len(dataset):
        dataset = dataset.subset(random.Random(seed).sample(range(len(dataset)), max_samples))
    dataset.set_draws(seed)
    return dataset


def choose_sweep(sweep_samples: int | None, images: ImageDataset) -> int:
    """How many images are swept; `InputError` for less than none."""
    if sweep_samples is None:
        return default_sweep_samples(len(images))
    if sweep_samples < 0:
        raise InputError(f"sweep_samples must not be negative, got {sweep_samples}; 0 is none.")
    return sweep_samples


def describe(vae: nn.Module | str | Path) -> str:
    """What a VAE is called in reports."""
    return type(vae).__name__ if isinstance(vae, nn.Module) else str(vae)
