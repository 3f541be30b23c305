"""`evaluate`: measure a VAE, on its own or against another."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from equivae.autoencoder import Autoencoder, check_resolution
from equivae.data.names import display_name
from equivae.data.sources import ImageDataset, ImagesLike, load_images, load_stream
from equivae.evaluation.latents import Latents
from equivae.evaluation.metrics import measure
from equivae.files.pretrained import load_vae
from equivae.reporting.options import EvaluationOptions, with_evaluation_options
from equivae.reporting.pictures import choose_images, picture
from equivae.reporting.probes import Probes, probe
from equivae.reporting.report import Report
from equivae.transforms import Transform, resolve_transforms
from equivae.transforms.groups import TransformsLike

__all__ = ["choose_samples", "describe", "describe_run", "evaluate"]


@with_evaluation_options
def evaluate(
    vae: nn.Module | str | Path,
    images: ImagesLike,
    transforms: TransformsLike = "rot180",
    *,
    baseline: nn.Module | str | Path | None = None,
    **options: Any,
) -> Report:
    """Measure reconstruction and equivariance of a VAE.

    Under `accelerate launch` or `torchrun` the images are shared out among the processes, and every
    process returns the whole report.

    Args:
        vae: a diffusers autoencoder or any module with the same calls, or where to load one from.
        images: anything that `equivae.data.load_images` takes; a tensor `(N, C, H, W)` in [-1, 1].
        transforms: names, groups, transforms or a list of those.
        baseline: another VAE to compare with, shown as "before".
        protocol: `"equivae"`, or `"imagenet"` for the numbers that papers about tokenizers give beside ours:
            `Resize(256)` and centre crop, the mean of every image's PSNR over 8 bits, torchmetrics' SSIM,
            LPIPS and rFID; see "Two protocols" in the docs.
        metrics: numbers of the latent space: `"fast"` for what costs next to nothing, `"paper"` for what
            papers measure as well, `"all"` for what takes many decodes, too.
        resolution: resize and centre-crop to this side in pixels; `None` takes images as they are.
        eval_batch_size: images per encoder and decoder call.
        max_samples: measure so many images, drawn at random with `seed`, instead of all; of a stream the
            first ones.
        image_column: as `split`, `background` and `streaming`, see `equivae.data.load_images`.
        sweep_samples: images on which angles from 0° to 180° and scales from 0.25 to 1.5 are measured as
            well, 22 decodes for each; 0 for none. By default one in six of the images, at most four, and
            angles only where a rotation is measured, scales only where `scale` or `zoom` is.
        reencode: measure re-encoding as well, `D(E(T(D(E(x)))))` against `T(x)`, and its time beside that of
            the latent op; a decode and an encode more for every transform.
        features: a backbone for feature cosine and rFID: a callable from images `(B, C, H, W)` in [0, 1]
            to features `(B, D)`, or `"inception"` (with `equivae[metrics]`).
        lpips: a perceptual distance: a callable from two batches of images in [0, 1] to distances `(B,)`,
            or `"alex"`, `"vgg"` or `"squeeze"` (with `equivae[metrics]`).
        rfid_reference: a folder of images or an `.npz` file with `mu` and `sigma`, against which the imagenet
            protocol takes the rFID; by default the images themselves.
        seed: of that draw, of random transforms, of intervals and of tests.
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
    asked = EvaluationOptions(**options)
    wanted = resolve_transforms(transforms)
    autoencoder = Autoencoder(load_vae(vae))
    dataset = choose_samples(autoencoder, images, asked)
    measuring = asked.measuring(len(dataset))
    settings = {"vae": describe(vae), **describe_run(images, dataset, wanted, asked)}
    other, before = None, None
    latents: Latents = {}
    if baseline is not None:
        other = Autoencoder(load_vae(baseline))
        if not isinstance(baseline, nn.Module):
            other.module.to(autoencoder.device)
        before = measure(other, dataset, wanted, measuring, label="before", keep_latents=latents)
        settings["baseline"] = describe(baseline)
    metrics = measure(autoencoder, dataset, wanted, measuring, baseline_latents=latents)
    chosen = choose_images(metrics, asked.panels)
    seed = asked.seed
    return Report(
        metrics,
        before,
        panels=picture(autoencoder, dataset, chosen, wanted, seed),
        panels_before=[] if other is None else picture(other, dataset, chosen, wanted, seed),
        probes=_probes({"before": other, "after": autoencoder}, dataset, chosen, asked),
        skipped=[*dataset.skipped, *dataset.replaced],
        settings=settings,
    )


def _probes(
    vaes: Mapping[str, Autoencoder | None],
    dataset: ImageDataset,
    chosen: Sequence[tuple[int, str]],
    options: EvaluationOptions,
) -> dict[str, Probes]:
    """Of the median of the pictured images; by nothing where there is but one VAE."""
    if not chosen:
        return {}
    index = chosen[len(chosen) // 2][0]
    there = {label: vae for label, vae in vaes.items() if vae is not None}
    found = {
        label if len(there) > 1 else "": probe(vae, dataset, index, options.metrics)
        for label, vae in there.items()
    }
    return {label: one for label, one in found.items() if one is not None}


def choose_samples(
    vae: Autoencoder, images: ImagesLike, options: EvaluationOptions
) -> ImageDataset:
    """The images to measure on; a source that draws random numbers gives the same ones each time."""
    check_resolution(options.side, vae)
    reading = {
        "resolution": options.side,
        "channels": vae.image_channels,
        **options.reading(),
    }
    most, seed = options.max_samples, options.seed
    stream = None if most is None else load_stream(images, **reading)
    if stream is not None and most is not None:
        dataset = stream.first(most)
    else:
        dataset = load_images(images, **reading)
    if most is not None and most < len(dataset):
        dataset = dataset.subset(random.Random(seed).sample(range(len(dataset)), most))
    dataset.set_draws(seed)
    return dataset


def describe_run(
    images: ImagesLike,
    dataset: ImageDataset,
    transforms: Sequence[Transform],
    options: EvaluationOptions,
) -> dict[str, Any]:
    """How the numbers come about, for a report's settings."""
    return {
        "images": display_name(images) if isinstance(images, (str, Path)) else len(dataset),
        "transforms": ",".join(t.name for t in transforms),
        "resolution": options.side or "as they are",
        "protocol": options.protocol,
        "metrics": options.metrics,
        "seed": options.seed,
    }


def describe(vae: nn.Module | str | Path) -> str:
    """What a VAE is called in reports."""
    return type(vae).__name__ if isinstance(vae, nn.Module) else str(vae)
