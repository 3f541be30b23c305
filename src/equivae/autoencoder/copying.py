"""Copies of modules with weights of their own, of those too that hold what they computed or were wrapped."""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any

from torch import Tensor, nn

from equivae.autoencoder.calls import calls_of
from equivae.autoencoder.naming import uncompiled
from equivae.autoencoder.probe import probe
from equivae.errors import InputError

__all__ = ["copy_module"]

_ORIGINAL = "_torchdynamo_orig_callable"


def copy_module(module: nn.Module) -> nn.Module:
    """A deep copy with weights of its own.

    `torch.nn.utils.weight_norm` keeps the weight that it computed, with its graph, as an attribute, and
    torch refuses to copy that; the copy gets the value, which its next call computes anew anyway. Parts and
    methods that `torch.compile` wrapped are copied as what they were before.

    Raises `InputError` for a module whose `encode` or `decode` was replaced on the instance by something
    that goes on using the weights of the original, so that learning with the copy would change nothing.

    ```python
    import equivae
    from equivae.autoencoder import copy_module

    vae = equivae.zoo.load()
    twin = copy_module(vae)
    twin.decoder.conv_in.weight.data.zero_()
    assert vae.decoder.conv_in.weight.any()
    ```
    """
    with uncompiled(module) as plain:
        computed = [
            value
            for part in plain.modules()
            for value in vars(part).values()
            if isinstance(value, Tensor) and not value.is_leaf
        ]
        twin = copy.deepcopy(plain, {id(value): value.detach().clone() for value in computed})
        replaced = []
        for part, its_twin in zip(plain.modules(), twin.modules(), strict=True):
            for name, call in _own_calls(part):
                if _is_compiled(call, part, name):
                    delattr(its_twin, name)
                else:
                    replaced.append(name)
        if replaced:
            _require_independent(plain, twin, replaced)
    return twin


def _own_calls(part: nn.Module) -> list[tuple[str, Any]]:
    """The methods that this instance has replaced by something of its own, and by what."""
    own = [(name, call) for name, call in vars(part).items() if callable(call)]
    return [(name, call) for name, call in own if callable(getattr(type(part), name, None))]


def _is_compiled(call: Any, part: nn.Module, name: str) -> bool:
    """Whether it is the part's own method, compiled."""
    original = getattr(call, _ORIGINAL, None)
    return (
        isinstance(original, MethodType)
        and original.__self__ is part
        and original.__func__ is getattr(type(part), name)
    )


def _require_independent(module: nn.Module, twin: nn.Module, names: list[str]) -> None:
    """Whether gradients reach the same weights in the copy as in the original."""
    ours, theirs = (probe(one, calls_of(one)) for one in (module, twin))
    if (ours.encoder_parameters, ours.decoder_parameters) == (
        theirs.encoder_parameters,
        theirs.decoder_parameters,
    ):
        return
    kind = type(module).__name__
    listed = " and ".join(f"`{name}`" for name in dict.fromkeys(names))
    raise InputError(
        f"{listed} of this {kind} was replaced on the instance by something that keeps using the "
        "instance's own weights, so that a copy of it could not learn; pass the VAE without it "
        f"(del vae.{names[0]}), or a module of your own around it."
    )
