"""Random crops and flips of a batch, repeatable by the batch's draws."""

from __future__ import annotations

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.errors import InputError

__all__ = ["check_crop", "random_crop", "random_crops", "random_flips"]


def check_crop(crop_size: int | None, image: Tensor, vae: Autoencoder) -> None:
    """Raise `InputError` unless images such as `(C, H, W)` have crops of that side, in whole cells."""
    if crop_size is None:
        return
    if image.ndim < 3:
        raise InputError("crop_size is for images and video; audio has no sides, leave it out.")
    if crop_size % vae.factor:
        near = max(1, round(crop_size / vae.factor)) * vae.factor
        raise InputError(
            f"crop_size {crop_size} does not divide by the VAE's factor {vae.factor}; use {near}, for "
            "example."
        )
    if crop_size > min(image.shape[-2:]):
        height, width = image.shape[-2:]
        raise InputError(
            f"crop_size {crop_size} is larger than the images, which have {height}x{width} pixels; lower it "
            "or raise the resolution."
        )


def random_crop(images: Tensor, crop_size: int | None, generator: torch.Generator) -> Tensor:
    """Crops `(..., S, S)` of images `(..., H, W)`, at one random place for all of them."""
    if crop_size is None:
        return images
    top, left = (
        int(torch.randint(side - crop_size + 1, (), generator=generator))
        for side in images.shape[-2:]
    )
    return images[..., top : top + crop_size, left : left + crop_size]


def random_crops(images: Tensor, crop_size: int | None, generator: torch.Generator) -> Tensor:
    """Crops `(B, ..., S, S)` of a batch `(B, ..., H, W)`, each image at a random place of its own."""
    if crop_size is None:
        return images
    return torch.stack([random_crop(image, crop_size, generator) for image in images])


def random_flips(images: Tensor, generator: torch.Generator) -> Tensor:
    """A batch `(B, C, ..., W)` of which each image is mirrored, left to right, with probability one half."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    shape = [-1] + [1] * (images.ndim - 1)
    return torch.where(mirrored.to(images.device).view(shape), images.flip(-1), images)
