"""Pairs of latents, of an image and of the same image moved: what every fit learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from equivae.autoencoder import Autoencoder, check_images
from equivae.data.sources import ImageDataset
from equivae.errors import InputError
from equivae.transforms import Transform

__all__ = ["Pair", "check_transform_fits", "evaluating", "latent_pairs"]


@dataclass(frozen=True)
class Pair:
    """One batch of what an operator maps from and to.

    Attributes:
        transform: the transform that leads from one to the other.
        moved: the moved grid `S(E(x))`, `(B, c, h', w')`.
        target: `E(T(x))`, of the same shape.
        mask: the cells that count, bool `(h', w')`; `None` means all.
        source: the images `x`, in [-1, 1].
        forward: whether a transform that was asked for leads there, not the inverse of one.
    """

    transform: Transform
    moved: Tensor
    target: Tensor
    mask: Tensor | None
    source: Tensor
    forward: bool


@torch.no_grad()
def latent_pairs(
    vae: Autoencoder,
    images: ImageDataset,
    transforms: Sequence[Transform],
    *,
    batch_size: int = 4,
    progress: bool = True,
) -> Iterator[list[Pair]]:
    """Per batch the pairs of every transform and of every inverse: `x` and each `T(x)` are encoded once.

    The way back, from `T(x)` to `x`, is a pair of the inverse, so that both are fitted in one pass; a
    transform that is its own inverse gets both.
    """
    from tqdm.auto import tqdm

    batches: Any = DataLoader(images, batch_size)  # type: ignore[arg-type]
    with evaluating(vae.module):
        for batch in tqdm(batches, desc="fit", disable=not progress, leave=False):
            check_images(batch, vae)
            x = batch.to(vae.device, vae.dtype)
            z = vae.encode(x)
            found = []
            for transform in transforms:
                turned = transform.pixel(x)
                encoded = vae.encode(turned)
                moved = transform.latent(z)
                _require_same_cells(transform, moved, encoded)
                mask = _cells(transform.mask(x), vae.factor)
                found.append(Pair(transform, moved, encoded, mask, x, True))
                try:
                    inverse = transform.inverse
                except NotImplementedError:
                    continue
                back = inverse.latent(encoded)
                _require_same_cells(inverse, back, z)
                mask = _cells((inverse @ transform).mask(x), vae.factor)
                found.append(Pair(inverse, back, z, mask, turned, False))
            yield found


def check_transform_fits(transform: Transform, image: Tensor, vae: Autoencoder) -> None:
    """`InputError` unless one operator can stand for `transform` on images such as `(C, H, W)`."""
    check_images(image[None], vae)
    if transform.draw(1, torch.Generator().manual_seed(0)) is not transform:
        raise InputError(
            f"transform {transform.name!r} draws new parameters for every batch, and one operator stands "
            "for one transform; fit it with its parameters fixed."
        )
    height, width = transform.pixel(image[None]).shape[-2:]
    if height % vae.factor or width % vae.factor:
        raise InputError(
            f"transform {transform.name!r} turns images of {tuple(image.shape[-2:])} pixels into "
            f"{(height, width)}, which do not divide by the VAE's factor {vae.factor}; choose another "
            "resolution."
        )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in eval mode, then every part in its own mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _cells(mask: Tensor | None, factor: int) -> Tensor | None:
    """The cells all of whose pixels are inside the mask."""
    if mask is None:
        return None
    outside = (~mask).float().reshape(1, 1, *mask.shape[-2:])
    return F.max_pool2d(outside, factor)[0, 0] == 0


def _require_same_cells(transform: Transform, moved: Tensor, encoded: Tensor) -> None:
    if moved.shape != encoded.shape:
        raise InputError(
            f"transform {transform.name!r} moves the latent grid to {tuple(moved.shape[-2:])} cells, but "
            f"the moved image encodes to {tuple(encoded.shape[-2:])}: its two ops disagree."
        )
