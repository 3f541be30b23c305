"""Pairs of latents, of an image and of the same image moved: what every fit learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from equivae.autoencoder import (
    Autoencoder,
    check_images,
    check_transforms,
    layout_of,
    measuring,
)
from equivae.data.sources import ImageDataset
from equivae.errors import InputError
from equivae.transforms import Transform
from equivae.transforms.base import mask_of_cells
from equivae.units import require_finite

__all__ = [
    "Pair",
    "Precision",
    "cells_inside",
    "check_crop",
    "check_transform_fits",
    "encoded",
    "latent_pairs",
    "lowered",
]

Precision = Literal["no", "fp16", "bf16"]
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Pair:
    """One batch of what an operator maps from and to.

    Attributes:
        transform: the transform that leads from one to the other.
        latent: the untouched latent `E(x)`.
        moved: the moved grid `S(E(x))`, `(B, c, *grid)`.
        target: `E(T(x))`, of the same shape.
        mask: the cells that count, bool `(*grid)`; `None` means all.
        source: the images `x`, in [-1, 1]; `None` where they are no longer needed.
        forward: whether a transform that was asked for leads there, not the inverse of one.
    """

    transform: Transform
    latent: Tensor
    moved: Tensor
    target: Tensor
    mask: Tensor | None
    source: Tensor | None
    forward: bool


def latent_pairs(
    vae: Autoencoder,
    images: ImageDataset,
    transforms: Sequence[Transform],
    *,
    batch_size: int = 4,
    mixed_precision: Precision = "no",
    inverse: bool = True,
    progress: bool = True,
) -> Iterator[list[Pair]]:
    """Per batch the pairs of every transform and of every inverse: `x` and each `T(x)` are encoded once.

    The way back, from `T(x)` to `x`, is a pair of the inverse, so that both are fitted in one pass; a
    transform that is its own inverse gets both. Without `inverse` the way back is left out for the others.
    """
    from tqdm.auto import tqdm

    rows = _rows(len(images), batch_size, any(t.mixes_samples for t in transforms))
    batches: Any = DataLoader(images, batch_sampler=rows)  # type: ignore[arg-type]
    for batch in tqdm(batches, desc="fit", disable=not progress, leave=False):
        check_images(batch, vae)
        # Anew for every batch: a context that is open at a yield would hold for the consumer too.
        with measuring(vae.module):
            x = batch.to(vae.device, vae.dtype)
            found = list(_pairs_of(vae, x, transforms, mixed_precision, inverse))
        yield found


def _rows(count: int, batch_size: int, no_single: bool) -> list[list[int]]:
    """The rows of every batch; with `no_single` a last one that would be alone goes with those before."""
    rows = [list(range(i, min(i + batch_size, count))) for i in range(0, count, batch_size)]
    if no_single and len(rows) > 1 and len(rows[-1]) == 1:
        rows[-2:] = [[*rows[-2], *rows[-1]]]
    return rows


def _pairs_of(
    vae: Autoencoder,
    x: Tensor,
    transforms: Sequence[Transform],
    mixed_precision: Precision,
    with_inverse: bool,
) -> Iterator[Pair]:
    z = encoded(vae, x, mixed_precision)
    for transform in transforms:
        turned = transform.pixel(x)
        goal = encoded(vae, turned, mixed_precision)
        moved = transform.latent(z)
        _require_same_cells(transform, moved, goal)
        mask = cells_inside(transform.mask(x), goal)
        yield Pair(transform, z, moved, goal, mask, x, True)
        try:
            inverse = transform.inverse
        except NotImplementedError:
            continue
        if not with_inverse and inverse.name != transform.name:
            continue
        back = inverse.latent(goal)
        _require_same_cells(inverse, back, z)
        mask = cells_inside((inverse @ transform).mask(x), z)
        yield Pair(inverse, goal, back, z, mask, turned, False)


def encoded(vae: Autoencoder, images: Tensor, mixed_precision: Precision) -> Tensor:
    """Latents in float32 at least; the encoder alone runs in half precision, never what follows."""
    with lowered(vae, mixed_precision):
        latents = vae.encode(images)
    name = type(vae.module).__name__
    require_finite(latents, f"the latents of {name}", "check its weights and its dtype")
    return latents.to(torch.promote_types(latents.dtype, torch.float32))


def lowered(vae: Autoencoder, mixed_precision: Precision) -> AbstractContextManager[Any]:
    """Autocast to a precision; nothing for `"no"`."""
    if mixed_precision == "no":
        return nullcontext()
    return torch.autocast(vae.device.type, _DTYPES[mixed_precision])


def check_transform_fits(transform: Transform, image: Tensor, vae: Autoencoder) -> None:
    """`InputError` unless one operator can stand for `transform` on images such as this one."""
    check_images(image[None], vae)
    check_transforms([transform], layout_of(image[None]), vae)
    if transform.draw(1, torch.Generator().manual_seed(0)) is not transform:
        raise InputError(
            f"transform {transform.name!r} draws new parameters for every batch, and one operator stands "
            "for one transform; fit it with its parameters fixed."
        )
    if image.ndim < 3:
        return
    batch = torch.stack([image] * 2) if transform.mixes_samples else image[None]
    height, width = transform.pixel(batch).shape[-2:]
    if height % vae.factor or width % vae.factor:
        raise InputError(
            f"transform {transform.name!r} turns images of {tuple(image.shape[-2:])} pixels into "
            f"{(height, width)}, which do not divide by the VAE's factor {vae.factor}; choose another "
            "resolution."
        )


def cells_inside(mask: Tensor | None, latents: Tensor) -> Tensor | None:
    """The cells of `latents` all of whose pixels are inside the mask, bool `(*grid)`."""
    if mask is None:
        return None
    cells = mask_of_cells(mask, latents.shape[-2:])[0, 0]
    return cells.expand(latents.shape[2:])


def check_crop(side: int, transform: Transform, image: Tensor, vae: Autoencoder) -> None:
    """`InputError` unless crops of a side suit the images, the VAE and the transform."""
    if image.ndim != 3:
        raise InputError("crop takes parts of images; leave it out for video and audio.")
    if side > min(image.shape[-2:]) or side % vae.factor:
        raise InputError(
            f"crop must divide by the VAE's factor {vae.factor} and be at most as large as the images that "
            f"transform {transform.name!r} is fitted on, {tuple(image.shape[-2:])} pixels, got {side}."
        )
    part = image[None, :, :side, :side]
    check_transform_fits(transform, part[0], vae)
    mask = transform.mask(part)
    size = torch.Size(length // vae.factor for length in transform.pixel(part).shape[-2:])
    if mask is not None and not mask_of_cells(mask, size).any():
        raise InputError(
            f"no latent cell of a crop of {side} pixels lies inside the mask of transform "
            f"{transform.name!r}; choose larger crops."
        )


def _require_same_cells(transform: Transform, moved: Tensor, encoded: Tensor) -> None:
    if moved.shape != encoded.shape:
        raise InputError(
            f"transform {transform.name!r} moves the latent grid to {tuple(moved.shape[2:])} cells, but "
            f"the moved image encodes to {tuple(encoded.shape[2:])}: its two ops disagree."
        )
