"""Random crops of a batch, repeatable by the batch's draws."""

from __future__ import annotations

import torch
from torch import Tensor

from equivae.errors import InputError

__all__ = ["check_crop", "random_crop"]


def check_crop(crop_size: int | None, height: int, width: int, factor: int) -> None:
    """Raise `InputError` unless images of so many pixels have crops of that side, in whole latent cells."""
    if crop_size is None:
        return
    if crop_size % factor:
        near = max(1, round(crop_size / factor)) * factor
        raise InputError(
            f"crop_size {crop_size} does not divide by the VAE's factor {factor}; use {near}, for example."
        )
    if crop_size > min(height, width):
        raise InputError(
            f"crop_size {crop_size} is larger than the images, which have {height}x{width} pixels; lower it "
            "or raise the resolution."
        )


def random_crop(images: Tensor, crop_size: int | None, generator: torch.Generator) -> Tensor:
    """Images `(B, C, S, S)` of `(B, C, H, W)`, at one random place for all of the batch."""
    if crop_size is None:
        return images
    top, left = (
        int(torch.randint(side - crop_size + 1, (), generator=generator))
        for side in images.shape[-2:]
    )
    return images[..., top : top + crop_size, left : left + crop_size]
