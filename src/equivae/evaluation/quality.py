"""How alike two batches of images are: error and structural similarity, whole or inside a mask."""

from __future__ import annotations

import torch
from torch import Tensor

from equivae.losses.similarity import similarity

__all__ = ["mean_inside", "similarity"]


def mean_inside(error: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `(B, C, ..., H, W)` over everything but the batch, where the mask holds; `(B,)`.

    NaN where the mask holds nowhere: nothing was compared, which is no perfect match.
    """
    if mask is None:
        return error.flatten(1).mean(1)
    error = error.mean(1, keepdim=True)
    if mask.ndim == 4 and error.ndim == 5:  # one mask for all frames
        mask = mask.unsqueeze(2)
    inside = mask.to(torch.bool).expand_as(error)
    return error.where(inside, 0.0).flatten(1).sum(1) / inside.flatten(1).sum(1)
