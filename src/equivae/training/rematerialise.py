"""Gradient checkpointing, switched on only where it changes nothing but the memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.errors import InputError

__all__ = ["enable_gradient_checkpointing"]


def enable_gradient_checkpointing(vae: Autoencoder, image: Tensor) -> None:
    """`InputError` where there is none, or where latents, images or gradients are not the same with it.

    Of diffusers' classes, AutoencoderTiny's encoder leaves the scaling of its input out under
    checkpointing, and AutoencoderKLMagvit's cache breaks the backward pass.
    """
    model: Any = vae.module
    name = type(model).__name__
    wanted = _values_and_gradients(vae, image)
    try:
        model.enable_gradient_checkpointing()
    except (AttributeError, ValueError) as error:
        raise InputError(f"{name} has no gradient checkpointing.") from error
    try:
        found = _values_and_gradients(vae, image)
        same = all(
            torch.allclose(a, b, rtol=1e-2, atol=1e-2 * float(a.abs().max()))
            for a, b in zip(wanted, found, strict=True)
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # torch's checkpoint notices that the second forward differs
        same = False
    if not same:
        raise InputError(
            f"{name} computes something else under gradient checkpointing, so what it learned would not "
            "hold without; leave gradient_checkpointing out."
        )


def _values_and_gradients(vae: Autoencoder, image: Tensor) -> list[Tensor]:
    values, given = [], image.detach()
    for call in (vae.encode, vae.decode):
        given.requires_grad_()
        result = call(given)
        (gradient,) = torch.autograd.grad(result.float().sum(), given)
        given = result.detach()
        values += [given.clone(), gradient]
    return values
