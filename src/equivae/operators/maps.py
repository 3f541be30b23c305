"""`fit_latent_map`: from the latents of one VAE to those of another by least squares."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from equivae.autoencoder import Autoencoder, at_top_level, check_images, measuring
from equivae.autoencoder.scaling import scaling_of
from equivae.data.sources import ImageDataset, ImagesLike, load_images
from equivae.errors import InputError
from equivae.files.pretrained import load_vae
from equivae.files.writing import bounded_name
from equivae.operators.decoding import decoded_psnr
from equivae.operators.fingerprint import Fingerprint
from equivae.operators.latent_map import LatentMap, MapReport
from equivae.operators.linear import solve_pairs, unfitted
from equivae.operators.options import FitOptions
from equivae.units import require_finite

__all__ = [
    "MapMetrics",
    "batches_of",
    "encoded_by",
    "fit_latent_map",
    "measure_latent_map",
    "split_of",
]


@dataclass(frozen=True)
class MapMetrics:
    """What a map of latents decodes to, in dB of PSNR against the images; see `MapReport`."""

    mapped_psnr: float
    reencoded_psnr: float
    ceiling_psnr: float


@at_top_level()
def fit_latent_map(
    vae_a: nn.Module | str | Path,
    vae_b: nn.Module | str | Path,
    images: ImagesLike,
    kernel_size: int = 5,
    *,
    ridge: float | None = None,
    border: bool = True,
    magnitude: bool = False,
    name: str | None = None,
    resolution: int | None = None,
    max_samples: int | None = None,
    image_column: str | None = None,
    split: str = "train",
    background: str | tuple[int, int, int] = "white",
    validation_split: float = 0.1,
    eval_batch_size: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> LatentMap:
    r"""Fit a map from the latents of one VAE to those of another in closed form; both stay as they are.

    Every cell of the target's grid is a linear map of the window of source cells around its place, one map
    for each phase, so that factors and numbers of channels may differ. With it the latents of one model go
    on in another without a decode and an encode.

    .. math:: \min_{M} \sum_x \lVert M\,E_a(x) - E_b(x) \rVert^2 + \lambda \lVert M \rVert^2

    Args:
        vae_a: the source: a diffusers autoencoder or any module with the same calls, or where to load it.
        vae_b: the target.
        images: anything that `equivae.data.load_images` takes; their sides divide by both factors. A few
            hundred photographs are enough.
        kernel_size: side of the window in cells of the coarser grid.
        ridge: `λ` relative to the mean variance of an entry; by default the one that suits held-out images.
        border: whether a channel of ones lies beside the latent, which tells the map where the border is.
        magnitude: whether `|z|` does.
        name: of the map; by default made of the classes of both.
        resolution: resize and centre-crop the images to this side in pixels.
        max_samples: use the first so many images only.
        image_column: as `split` and `background`, see `equivae.data.load_images`.
        validation_split: share of the images held out.
        eval_batch_size: images per call.
        seed: of the split.
        progress: show a progress bar.

    Returns a `LatentMap` with a `report`. Raises `InputError` for VAEs of video or audio, of grey beside
    colour, for fewer than two images and for images that one of them cannot take.

    Closed-form maps between latent spaces are those of Maiorca et al. (arXiv 2311.00664); networks that do
    this for diffusion models are known as latent interposers.

    ```python
    import equivae

    a, b = equivae.zoo.load(), equivae.zoo.load()
    images = equivae.data.dead_leaves(6, size=64)
    op = equivae.fit_latent_map(a, b, images, kernel_size=3, progress=False)
    z = op.latent(equivae.Autoencoder(a).encode(images))
    print(op.report.to_markdown())
    ```
    """
    options = FitOptions(
        kernel_size=kernel_size,
        ridge=ridge,
        validation_split=validation_split,
        eval_batch_size=eval_batch_size,
        seed=seed,
        progress=progress,
    )
    if not isinstance(options.kernel_size, int):
        raise InputError("kernel_size of a latent map must be an odd number, such as 3 or 5.")
    began = time.perf_counter()
    source, target = Autoencoder(load_vae(vae_a)), Autoencoder(load_vae(vae_b))
    _check(source, target)
    dataset = load_images(
        images,
        resolution=resolution,
        channels=source.image_channels,
        max_samples=max_samples,
        image_column=image_column,
        split=split,
        background=background,
    )
    training, held_out = split_of(dataset, options)
    first = next(_latents(source, target, dataset.subset([0]), 1, False))
    found = solve_pairs(
        unfitted(*first, kernel_size, border=border, magnitude=magnitude),
        _latents(source, target, training, eval_batch_size, progress),
        _latents(source, target, held_out, eval_batch_size, False),
        ridge,
    )
    kinds = [type(vae.module).__name__.lower() for vae in (source, target)]
    made = LatentMap(
        found.operator.to(source.device),
        name or bounded_name(re.sub(r"[^a-z0-9_]+", "_", "_to_".join(kinds))),
        Fingerprint.of(source),
        Fingerprint.of(target),
        (
            scaling_of(source.module, source.latent_channels),
            scaling_of(target.module, target.latent_channels),
        ),
    )
    numbers = measure_latent_map(made, source, target, held_out, eval_batch_size)
    made.report = MapReport(
        kernel_size,
        found.ridge,
        len(dataset),
        len(held_out),
        found.cells,
        found.error,
        numbers.mapped_psnr,
        numbers.reencoded_psnr,
        numbers.ceiling_psnr,
        round(time.perf_counter() - began, 2),
    )
    return made


def measure_latent_map(
    op: LatentMap,
    vae_a: nn.Module | Autoencoder,
    vae_b: nn.Module | Autoencoder,
    images: ImagesLike,
    eval_batch_size: int = 4,
) -> MapMetrics:
    """What the target decodes of mapped latents, beside decoding and encoding again, and the ceiling.

    Args:
        op: the map.
        vae_a: its source.
        vae_b: its target.
        images: to encode, as `load_images` takes them, at the resolution to measure at.
        eval_batch_size: images per call.

    Warns when a VAE is not the one that the map was fitted to.
    """
    source, target = (v if isinstance(v, Autoencoder) else Autoencoder(v) for v in (vae_a, vae_b))
    op.check_vaes(source, target)
    dataset = load_images(images, channels=source.image_channels)

    def mapped(x: Tensor) -> Tensor:
        return op.latent(encoded_by(source, x).to(next(op.operator.parameters()).device))

    def again(x: Tensor) -> Tensor:
        with measuring(source.module):
            return encoded_by(target, source.decode(source.encode(_for(source, x))).clamp(-1, 1))

    def psnr_of(latents: Any) -> float:
        batches = (
            (_for(target, latents(x)), _for(target, x), None)
            for x in batches_of(dataset, eval_batch_size, source, target)
        )
        return decoded_psnr(target, batches)

    return MapMetrics(psnr_of(mapped), psnr_of(again), psnr_of(lambda x: encoded_by(target, x)))


def batches_of(
    images: ImageDataset, batch_size: int, *vaes: Autoencoder, progress: bool = False
) -> Iterator[Tensor]:
    """Batches of images, each checked to suit every VAE."""
    batches: Iterable[Any] = DataLoader(images, batch_size)  # type: ignore[arg-type]
    for batch in tqdm(batches, desc="fit", disable=not progress, leave=False):
        for vae in vaes:
            check_images(batch, vae)
        yield batch


def split_of(images: ImageDataset, options: FitOptions) -> tuple[ImageDataset, ImageDataset]:
    """Training and held-out images. `InputError` for fewer than two."""
    if len(images) < 2:
        raise InputError(
            f"a fit needs at least two images, one of them held out to choose the ridge; got {len(images)}."
        )
    return images.split(options.validation_split, options.seed)


def _check(source: Autoencoder, target: Autoencoder) -> None:
    for vae in (source, target):
        if vae.layout != "image":
            raise InputError(
                f"latent maps are fitted between VAEs of images, and {type(vae.module).__name__} is one of "
                f"{vae.layout}."
            )
    if source.image_channels != target.image_channels:
        raise InputError(
            f"the VAEs take images of {source.image_channels} and of {target.image_channels} channels; a "
            "latent map needs two that take the same images."
        )


def _latents(
    source: Autoencoder, target: Autoencoder, images: ImageDataset, batch_size: int, progress: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    for x in batches_of(images, batch_size, source, target, progress=progress):
        z = encoded_by(source, x)
        yield z, encoded_by(target, x).to(z.device)


def encoded_by(vae: Autoencoder, x: Tensor) -> Tensor:
    """Latents in float32 at least."""
    with measuring(vae.module):
        latents = vae.encode(_for(vae, x))
    name = type(vae.module).__name__
    require_finite(latents, f"the latents of {name}", "check its weights and its dtype")
    return latents.to(torch.promote_types(latents.dtype, torch.float32))


def _for(vae: Autoencoder, x: Tensor) -> Tensor:
    return x.to(vae.device, vae.dtype)
