"""How a module is run: the modes of its parts, and the one context in which it is run for numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder.precision import in_full_precision
from equivae.errors import InputError

__all__ = [
    "at_top_level",
    "differentiable",
    "evaluating",
    "measuring",
    "require_differentiable",
    "whole_batches",
]

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within it nothing is in training mode; then every part is in its own mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def measuring(module: nn.Module) -> Iterator[None]:
    """The one context in which an autoencoder is run for numbers, whatever its caller has switched on.

    Within it every part is in evaluation mode, nothing records gradients, float16 weights are float32 where
    the config has `force_upcast`, and autocast and `torch.inference_mode` of the caller are off, so that the
    numbers are the same wherever they are measured. What a caller wants of these (autocast for a fit, say)
    is entered within. Then all is as it was, after an error too.

    Args:
        module: the autoencoder's module; the `module` of an `Autoencoder`.

    A generator function enters it anew for every batch: a context that is open while a generator waits
    holds for its consumer, too.

    ```python
    import torch

    import equivae
    from equivae.autoencoder import measuring

    vae = equivae.Autoencoder(equivae.zoo.load().train())
    with torch.autocast("cpu", torch.bfloat16), measuring(vae.module):
        assert vae.encode(torch.zeros(1, 3, 64, 64)).dtype == torch.float32
    assert vae.module.training
    ```
    """
    with ExitStack() as stack:
        stack.enter_context(at_top_level())
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(module))
        stack.enter_context(in_full_precision(module))
        yield


@contextmanager
def at_top_level() -> Iterator[None]:
    """As if nothing was switched on outside: no inference mode, no autocast, and gradients are recorded.

    For whatever makes weights, learns or adds up numbers of its own; a decorator, too.
    """
    enabled = [device for device in _AUTOCAST_DEVICES if _autocasts(device)]
    # Inside another autocast, one of a training step would keep its cast weights for the steps to come.
    depth = torch.autocast_increment_nesting()
    for _ in range(depth):
        torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()
    for device in enabled:
        torch.set_autocast_enabled(device, False)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for device in enabled:
            torch.set_autocast_enabled(device, True)
        for _ in range(depth - 1):
            torch.autocast_increment_nesting()


def _autocasts(device: str) -> bool:
    try:
        return torch.is_autocast_enabled(device)
    except RuntimeError:  # a device that this torch has no autocast for
        return False


def differentiable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where it was made under inference mode: such a one can never be learned from."""
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return tensor.clone()
    return tensor


def require_differentiable(module: nn.Module) -> None:
    """Raise `InputError` for weights made under `torch.inference_mode`, which torch never differentiates."""
    kind = type(module).__name__
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_inference():
            raise InputError(
                f"the weight {name} of {kind} was made under torch.inference_mode(), so that no gradient can "
                "ever pass it; load the VAE outside of that, or pass a deep copy that was made outside."
            )


@contextmanager
def whole_batches(module: nn.Module) -> Iterator[bool]:
    """Within it nothing slices its batches, which calls the same layers many times; gives whether it did."""
    slicing: list[Any] = [part for part in module.modules() if getattr(part, "use_slicing", False)]
    for part in slicing:
        part.use_slicing = False
    try:
        yield bool(slicing)
    finally:
        for part in slicing:
            part.use_slicing = True
