"""Where a VAE may run in half precision: `force_upcast` in its config says where not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = [
    "dtypes_of",
    "forces_upcast",
    "in_full_precision",
    "outside_fp16_autocast",
    "restore_dtypes",
]


def forces_upcast(module: nn.Module) -> bool:
    """Whether the config says that float16 overflows, as that of the SDXL VAE does."""
    return bool(getattr(getattr(module, "config", None), "force_upcast", False))


@contextmanager
def outside_fp16_autocast(module: nn.Module, given: Tensor) -> Iterator[Tensor]:
    """Switches fp16 autocast off for a module that forces the upcast; bf16 has the range and stays.

    Gives what was given, in the dtype of the weights where autocast no longer sees to that.
    """
    device = given.device.type
    if (
        forces_upcast(module)
        and torch.is_autocast_enabled(device)
        and torch.get_autocast_dtype(device) == torch.float16
    ):
        weight = next(module.parameters(), given)
        with torch.autocast(device, enabled=False):
            yield given.to(weight.dtype)
    else:
        yield given


@contextmanager
def in_full_precision(module: nn.Module) -> Iterator[None]:
    """float16 weights as float32 for the while, if the config forces the upcast; then as they were.

    The way back is exact as long as nothing trains in between.
    """
    if not forces_upcast(module) or not any(p.dtype == torch.float16 for p in module.parameters()):
        yield
        return
    halves = [t for t in (*module.parameters(), *module.buffers()) if t.dtype == torch.float16]
    kept = [(tensor, tensor.data) for tensor in halves]
    try:
        for tensor in halves:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data


def dtypes_of(module: nn.Module) -> dict[str, torch.dtype]:
    """The dtype of every weight and buffer, by name."""
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor.dtype for name, tensor in named.items()}


def restore_dtypes(module: nn.Module, dtypes: dict[str, torch.dtype]) -> None:
    """Every weight and buffer in the dtype that `dtypes_of` found."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.dtype != dtypes[name]:
            tensor.data = tensor.data.to(dtypes[name])
