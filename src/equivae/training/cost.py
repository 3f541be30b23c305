"""What a step at latent resolution costs, counted in operations."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from equivae.autoencoder import Autoencoder, find_bottleneck, measuring
from equivae.autoencoder.modes import whole_batches

__all__ = ["relative_cost"]


def relative_cost(vae: Autoencoder, images: Tensor, decodes: int = 1) -> float:
    """What an image costs at latent resolution, over what it costs when everything learns.

    Counted in operations, as a time would not be the same when a run is repeated: a step here runs the tail
    and two heads forward and backward, what the untouched head gives being known; elsewhere the encoder, and
    the decoder for each of `decodes`.

    Args:
        vae: the autoencoder.
        images: `(B, C, H, W)` in [-1, 1]; the first one is looked at.
        decodes: of an image in a step.

    Raises `NoBottleneckError` if there are no such layers.
    """
    from torch.utils.flop_counter import FlopCounterMode

    x = images[:1].to(vae.device, vae.dtype)

    def count(call: Callable[[Tensor], Tensor], given: Tensor) -> tuple[int, Tensor]:
        with FlopCounterMode(display=False) as counter:
            gave = call(given)
        return counter.get_total_flops(), gave

    with whole_batches(vae.module):
        found = find_bottleneck(vae, x)
        with measuring(vae.module):
            encoder, latents = count(vae.encode, x)
            decoder, _ = count(vae.decode, latents)
            tail, _ = count(found.tail, found.front(x))
            head, _ = count(found.head, latents)
    return (3 * tail + 6 * head) / max(1, 3 * (encoder + decodes * decoder))
