"""The dtypes of a VAE's weights, and where it may run in half precision (`force_upcast` says where not)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder.naming import plain_name
from equivae.errors import InputError

__all__ = [
    "dtypes_of",
    "forces_upcast",
    "has_bf16_units",
    "has_mixed_dtypes",
    "in_full_precision",
    "outside_fp16_autocast",
    "restore_dtypes",
    "working_dtype",
]


def forces_upcast(module: nn.Module) -> bool:
    """Whether a config says that float16 overflows, as the SDXL VAE's does; its own or a part's."""
    configs = (getattr(part, "config", None) for part in module.modules())
    return any(bool(getattr(config, "force_upcast", False)) for config in configs)


@contextmanager
def outside_fp16_autocast(module: nn.Module, given: Tensor) -> Iterator[Tensor]:
    """Switches fp16 autocast off for a module that forces the upcast; bf16 has the range and stays.

    Gives what was given, in the dtype of the weights where autocast no longer sees to that.
    """
    device = given.device.type
    if (
        torch.is_autocast_enabled(device)
        and torch.get_autocast_dtype(device) == torch.float16
        and forces_upcast(module)
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
    halves = [t for t in (*module.parameters(), *module.buffers()) if t.dtype == torch.float16]
    if not halves or not forces_upcast(module):
        yield
        return
    kept = [(tensor, tensor.data) for tensor in halves]
    try:
        for tensor in halves:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data


def has_bf16_units() -> bool:
    """Whether this processor multiplies bf16 by itself, so that bf16 autocast makes it faster."""
    cpu: Any = torch.cpu
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(cpu, name, bool)() for name in names)


def has_mixed_dtypes(module: nn.Module) -> bool:
    """Whether the float weights differ in dtype, as with a bfloat16 encoder and a float32 decoder."""
    return len({p.dtype for p in module.parameters() if p.is_floating_point()}) > 1


def working_dtype(weights: Sequence[Tensor], otherwise: torch.dtype) -> torch.dtype:
    """The dtype that some weights compute in: a kernel's, since norms and tables may be kept apart."""
    kernels = [w for w in weights if w.is_floating_point()]
    kernels.sort(key=lambda weight: weight.ndim < 3)  # stable: convolutions first
    return kernels[0].dtype if kernels else otherwise


def dtypes_of(module: nn.Module) -> dict[str, torch.dtype]:
    """The dtype of every parameter and buffer by its name, as `restore_dtypes` takes them.

    ```python
    import torch

    import equivae
    from equivae.autoencoder.precision import dtypes_of, restore_dtypes

    vae = equivae.zoo.load()
    vae.encoder.to(torch.bfloat16)  # and the decoder in float32
    dtypes = dtypes_of(vae)
    restore_dtypes(vae.float(), dtypes)
    assert vae.encoder.conv_in.weight.dtype == torch.bfloat16
    assert vae.decoder.conv_in.weight.dtype == torch.float32
    ```
    """
    return {plain_name(name): tensor.dtype for name, tensor in _named(module)}


def restore_dtypes(module: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    """Give every parameter and buffer the dtype that `dtypes_of` noted, of this module or of a copy.

    The tensors stay the same objects, so that an optimizer that holds them goes on working. Raises
    `InputError` when a name was not noted.
    """
    missing = [name for name, _ in _named(module) if plain_name(name) not in dtypes]
    if missing:
        raise InputError(
            f"{type(module).__name__} has {missing[0]}, whose dtype was not noted; note the dtypes of the "
            "same module with dtypes_of."
        )
    for name, tensor in _named(module):
        wanted = dtypes[plain_name(name)]
        if tensor.dtype != wanted:
            tensor.data = tensor.data.to(wanted)


def _named(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
