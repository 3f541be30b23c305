"""Names of weights without a trace of `torch.compile`, which puts a module of its own around each part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

__all__ = ["plain_name", "plain_state_dict", "uncompiled"]

_WRAPPED = "_orig_mod"


def plain_name(name: str) -> str:
    """The name that a weight has in the module before it, or a part of it, was compiled.

    ```python
    from equivae.autoencoder.naming import plain_name

    assert plain_name("decoder._orig_mod.conv_in.weight") == "decoder.conv_in.weight"
    ```
    """
    return ".".join(part for part in name.split(".") if part != _WRAPPED)


def plain_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """The `state_dict` of a module with the names that it has uncompiled."""
    return {plain_name(name): tensor for name, tensor in module.state_dict().items()}


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[nn.Module]:
    """The module itself within compiled ones: for saving, loading and copying under plain names.

    Within the context every compiled part is the part that was compiled, and what is given is the
    module that a compiled whole stands for; afterwards everything is compiled as before. No weight is
    copied.

    ```python
    import torch

    import equivae
    from equivae.autoencoder.naming import uncompiled

    vae = equivae.zoo.load()
    vae.decoder = torch.compile(vae.decoder)
    with uncompiled(vae) as plain:
        assert "decoder.conv_in.weight" in plain.state_dict()
    assert "decoder._orig_mod.conv_in.weight" in vae.state_dict()
    ```
    """
    inner = _inside(module)
    swapped: list[tuple[nn.Module, str, nn.Module]] = []
    for part in list(inner.modules()):
        for name, child in list(part._modules.items()):
            if child is not None and _inside(child) is not child:
                swapped.append((part, name, child))
                part._modules[name] = _inside(child)
    try:
        yield inner
    finally:
        for part, name, child in swapped:
            part._modules[name] = child


def _inside(module: nn.Module) -> nn.Module:
    while isinstance(module._modules.get(_WRAPPED), nn.Module):
        module = module._modules[_WRAPPED]  # type: ignore[assignment]
    return module
