"""How a decoded image is compared with its target: named losses or any callable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Union

import torch.nn.functional as F
from torch import Tensor

from equivae.errors import EmptyMaskError, InputError, did_you_mean
from equivae.options import quoted
from equivae.transforms.base import mask_like

__all__ = [
    "RECONSTRUCTION_LOSSES",
    "Reconstruction",
    "ReconstructionLike",
    "masked",
    "nothing",
    "resolve_reconstruction",
]

Reconstruction = Callable[[Tensor, Tensor], Tensor]
ReconstructionLike = Union[str, Reconstruction]


def mse(decoded: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(decoded.float(), target.float())


def l1(decoded: Tensor, target: Tensor) -> Tensor:
    return F.l1_loss(decoded.float(), target.float())


def nothing(decoded: Tensor, target: Tensor) -> Tensor:
    return decoded.float().mean() * 0.0


RECONSTRUCTION_LOSSES: dict[str, Reconstruction] = {"mse": mse, "l1": l1, "none": nothing}


def resolve_reconstruction(loss: ReconstructionLike) -> Reconstruction:
    """The function behind `"mse"`, `"l1"` or `"none"`, or the callable given; else `InputError`."""
    if callable(loss):
        return loss
    if not isinstance(loss, str) or loss not in RECONSTRUCTION_LOSSES:
        near = did_you_mean(str(loss)[:60], RECONSTRUCTION_LOSSES)
        raise InputError(
            f"unknown reconstruction loss {quoted(loss)}.{near}"
            " Any callable (decoded, target) -> loss works too."
        )
    return RECONSTRUCTION_LOSSES[loss]


def masked(loss: Reconstruction, decoded: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """`loss` over the pixels inside the mask, for any loss that averages over pixels.

    Outside, the decode is replaced by the target, which costs nothing; the mean is then scaled from
    all pixels to those inside. Raises `EmptyMaskError` where none is: nothing was compared, which is no
    perfect match.
    """
    if mask is None:
        return loss(decoded, target).mean()
    # On other devices to ask would make every step wait; a plan asks before the run.
    if mask.device.type == "cpu" and not mask.any():
        raise EmptyMaskError(
            "the mask holds nowhere, so there is nothing to compare; choose a milder transform or larger "
            "images."
        )
    inside = mask_like(mask, decoded).to(decoded.dtype)
    inside = inside.expand(decoded.shape[0], 1, *decoded.shape[2:])
    blended = decoded * inside + target.to(decoded.dtype) * (1 - inside)
    return loss(blended, target).mean() / inside.mean().clamp_min(1e-6)
