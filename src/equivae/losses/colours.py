"""Images as the networks of perceptual terms take them."""

from __future__ import annotations

from torch import Tensor

from equivae.errors import InputError

__all__ = ["as_rgb"]


def as_rgb(images: Tensor, term: str) -> Tensor:
    """`(B, 3, H, W)` of colour or grey images, and of videos `(B, C, T, H, W)` their frames."""
    if images.ndim == 5:
        images = images.transpose(1, 2).flatten(0, 1)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise InputError(
            f"the term {term!r} looks at grey or colour images, got {tuple(images.shape[1:])}; leave it out."
        )
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
