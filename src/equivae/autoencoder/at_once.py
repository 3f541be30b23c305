"""How many images one call takes: as many as the device runs fastest, not as many as fit."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from equivae.autoencoder.compiling import eager
from equivae.autoencoder.modes import evaluating
from equivae.autoencoder.view import Autoencoder

__all__ = ["at_once", "decode_in_calls", "encode_in_calls", "in_calls"]

_CPU_BYTES = 16 * 2**20
"""The largest activation that a call on the CPU may make.

From 32 MiB on, glibc takes every block from the kernel and gives it back, page by page; below that, too,
where several such blocks come free together. With 12 images of 128 px in one call of TAEF2's decoder the
published objective runs at 0.90 times the speed of a plain loop with two calls of six, and with this size at
1.03 times (`benchmarks/training_speed.py`).
"""

_Key = tuple[str, torch.dtype]
_KNOWN: WeakKeyDictionary[nn.Module, dict[_Key, float]] = WeakKeyDictionary()


_WIDEST = 256  # channels at the images' own resolution, in any VAE that is known


def at_once(
    module: nn.Module, name: str, call: Callable[[Tensor], Tensor], given: Tensor, pixels: int
) -> int | None:
    """Images per call on the device that these images or latents are on; `None` for all of them.

    It depends on shapes and precision alone, so that a run that is repeated or resumed has the same calls.
    On a GPU all images share a call. So they do where layers normalise over the batch.

    Args:
        module: the autoencoder's module.
        name: of the call, `"encode"` or `"decode"`.
        call: takes a batch; is called with one image, without gradients, when it is new.
        given: the batch, of any rank.
        pixels: of one of its images; small batches need no look.
    """
    batch = given.shape[0]
    small = 4 * _WIDEST * batch * pixels <= _CPU_BYTES
    if small or given.device.type != "cpu" or batch < 2 or _mixes_images(module):
        return None
    known = _KNOWN.setdefault(module, {})
    autocast = torch.is_autocast_enabled("cpu")
    key = (name, torch.get_autocast_dtype("cpu") if autocast else given.dtype)
    if key not in known:
        known[key] = _largest(module, call, given[:1]) / given[0].numel()
    most = max(1, int(_CPU_BYTES / max(1.0, known[key] * given[0].numel())))
    calls = -(-batch // most)
    return None if calls == 1 else -(-batch // calls)


def in_calls(call: Callable[[Tensor], Tensor], given: Tensor, size: int | None) -> Tensor:
    """What `call` gives for the batch, so many at a time."""
    if size is None or size >= given.shape[0]:
        return call(given)
    return torch.cat([call(part) for part in torch.split(given, size)])


def encode_in_calls(vae: Autoencoder, images: Tensor) -> Tensor:
    """`vae.encode(images)`, as many images a call as the device runs fastest."""
    size = at_once(vae.module, "encode", vae.encode, images, images[0, 0].numel())
    return in_calls(vae.encode, images, size)


def decode_in_calls(vae: Autoencoder, latents: Tensor, pixels: int) -> Tensor:
    """`vae.decode(latents)`, likewise; `pixels` of one of the images that come out."""
    size = at_once(vae.module, "decode", vae.decode, latents, pixels)
    return in_calls(vae.decode, latents, size)


def _mixes_images(module: nn.Module) -> bool:
    norms = (part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm))
    return any(norm.training for norm in norms)


@torch.no_grad()
def _largest(module: nn.Module, call: Callable[[Tensor], Tensor], image: Tensor) -> int:
    """Bytes of the largest tensor that a layer is given or gives."""
    most = 0

    def look(part: nn.Module, given: object, gave: object) -> None:
        nonlocal most
        for one in (*(given if isinstance(given, tuple) else ()), gave):
            if isinstance(one, Tensor):
                most = max(most, one.numel() * one.element_size())

    handles = [part.register_forward_hook(look) for part in module.modules()]
    try:
        with eager(module), evaluating(module), torch.random.fork_rng(devices=[]):
            call(image)
    finally:
        for handle in handles:
            handle.remove()
    return most
