"""The order in which an autoencoder's weights are used, of which the last ones are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder.modes import evaluating
from equivae.autoencoder.view import Autoencoder

__all__ = ["weights_in_order"]


def weights_in_order(vae: Autoencoder, images: Tensor) -> dict[str, list[nn.Parameter]]:
    """The weight matrices and kernels of `"encoder"` and `"decoder"`, in the order of their last use.

    Args:
        vae: the autoencoder; it is run once, in evaluation mode and without gradients.
        images: `(B, C, H, W)` in [-1, 1], of which the first is looked at.

    ```python
    import torch

    import equivae
    from equivae.autoencoder.last_layers import weights_in_order

    vae = equivae.Autoencoder(equivae.zoo.load())
    weights = weights_in_order(vae, torch.zeros(1, 3, 64, 64))
    assert weights["decoder"][-1] is vae.module.decoder.conv_out.weight
    ```
    """
    with torch.no_grad(), evaluating(vae.module):
        with _watched(vae.module) as encoder:
            latents = vae.encode(images[:1])
        with _watched(vae.module) as decoder:
            vae.decode(latents)
    return {"encoder": list(encoder.values()), "decoder": list(decoder.values())}


@contextmanager
def _watched(module: nn.Module) -> Iterator[dict[int, nn.Parameter]]:
    """By identity, the weights of the parts that are called within it."""
    used: dict[int, nn.Parameter] = {}

    def note(part: nn.Module, inputs: Any, output: Any) -> None:
        for weight in part.parameters(recurse=False):
            if weight.ndim > 1:
                used.pop(id(weight), None)
                used[id(weight)] = weight

    handles = [part.register_forward_hook(note) for part in module.modules()]
    try:
        yield used
    finally:
        for handle in handles:
            handle.remove()
