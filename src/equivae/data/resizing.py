"""Tensors resized and cropped as pictures are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from equivae.data.buckets import Buckets
from equivae.data.pictures import WHOLE_PIXELS, target_of, target_size

__all__ = ["imagenet_crop", "resize_and_crop"]


def resize_and_crop(image: Tensor, resolution: int | Buckets) -> Tensor:
    """Resize the short side of `(C, H, W)` to `resolution` (bicubic, anti-aliased), crop the centre.

    With buckets, to cover the one nearest to its shape. Of a video `(C, T, H, W)` every frame.
    """
    if image.ndim == 4:
        return torch.stack([resize_and_crop(frame, resolution) for frame in image.unbind(1)], 1)
    height, width = sides = tuple(image.shape[-2:])
    target = target_of(height, width, resolution)
    size = target_size(sides, target)
    top, left = ((side - wanted) // 2 for side, wanted in zip(size, target, strict=True))
    if size[0] * size[1] > WHOLE_PIXELS:
        first_row, rows = _weights(sides[0], size[0], top, target[0])
        first_column, columns = _weights(sides[1], size[1], left, target[1])
        image = image[:, first_row : first_row + rows.shape[1]]
        image = image[..., first_column : first_column + columns.shape[1]]
        return (rows.to(image) @ image @ columns.T.to(image)).clamp(-1, 1)
    if size != sides:
        image = F.interpolate(image[None], list(size), mode="bicubic", antialias=True)[0]
        image = image.clamp(-1, 1)
    return image[:, top : top + target[0], left : left + target[1]]


def imagenet_crop(image: Tensor, resolution: int) -> Tensor:
    """What torchvision's `Resize(resolution)` and `CenterCrop(resolution)` make of a tensor `(C, H, W)`.

    Bilinear and anti-aliased, the long side rounded down: how the evaluations of tokenizers on ImageNet
    prepare images (LightningDiT's `evaluate_tokenizer.py`). Of a video `(C, T, H, W)` every frame.
    """
    if image.ndim == 4:
        return torch.stack([imagenet_crop(frame, resolution) for frame in image.unbind(1)], 1)
    short = min(image.shape[-2:])
    if short != resolution:
        size = [int(resolution * side / short) for side in image.shape[-2:]]
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    top, left = (round((side - resolution) / 2) for side in image.shape[-2:])
    return image[:, top : top + resolution, left : left + resolution]


def _weights(side: int, resized: int, start: int, count: int) -> tuple[int, Tensor]:
    """The rows `start` to `start + count` of the resampling of `side` values to `resized`.

    Given are the first value that they need, and weights `(count, needed)` from it on.

    Keys' cubic with a = -0.5, widened where it shrinks, as `F.interpolate(antialias=True)` has it.
    """
    scale = side / resized
    centre = (torch.arange(start, start + count, dtype=torch.float64) + 0.5) * scale
    first = max(0, int(centre[0] - 2 * max(scale, 1.0)))
    last = min(side, int(centre[-1] + 2 * max(scale, 1.0)) + 1)
    place = torch.arange(first, last, dtype=torch.float64) + 0.5
    x = (place - centre[:, None]).abs() / max(scale, 1.0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros(())))
    return first, (weights / weights.sum(1, keepdim=True)).float()
