"""`torch.compile` for the parts of an autoencoder that its calls run, for as long as a run lasts."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder.modes import evaluating
from equivae.autoencoder.view import Autoencoder
from equivae.errors import InputError, first_line

__all__ = ["check_compiler", "compiled", "eager"]

_BACKEND = "inductor"
_COMPILED = "_compiled_call_impl"


def check_compiler(device: torch.device) -> None:
    """`InputError` where torch finds no compiler for this device."""
    reason = ""
    if device.type == "cuda":
        triton: Any = importlib.import_module("torch.utils._triton")
        reason = "" if triton.has_triton() else "Triton is not installed"
    else:
        builder: Any = importlib.import_module("torch._inductor.cpp_builder")
        try:
            builder.get_cpp_compiler()
        except Exception as error:
            reason = first_line(error)
    if reason:
        raise InputError(
            f"compile=True needs a compiler for {device.type}, and torch finds none: {reason}; install one, "
            "or leave compile out."
        )


@contextmanager
def compiled(vae: Autoencoder, image: Tensor) -> Iterator[None]:
    """Within it the outermost parts that an encode and a decode call are compiled, in place.

    Names and weights stay. What is drawn for each sample moves latents outside of these parts, so that it
    asks for no other graph. Every new shape, and evaluation mode, does.

    Args:
        vae: the autoencoder.
        image: `(1, C, H, W)` in [-1, 1], to watch one encode and one decode.
    """
    parts = _called(vae, image)
    for part in parts:
        setattr(part, _COMPILED, _compiled_call(part))
    try:
        yield
    finally:
        for part in parts:
            setattr(part, _COMPILED, None)


def _compiled_call(part: nn.Module) -> Any:
    # Not `part.compile()`, which does nothing for a container whose `forward` is torch's own.
    whole: Any = part

    def call(*given: Any, **named: Any) -> Any:
        return whole._call_impl(*given, **named)

    call.__code__ = call.__code__.replace()  # graphs are counted by code, and each part has its own
    return torch.compile(call, backend=_BACKEND)


@contextmanager
def eager(module: nn.Module) -> Iterator[None]:
    """Within it no part runs compiled: for a few calls of other shapes, and for hooks.

    Compiled code does not look for hooks that came after it.
    """
    kept = [(part, part.__dict__[_COMPILED]) for part in module.modules() if _is_compiled(part)]
    for part, _ in kept:
        setattr(part, _COMPILED, None)
    try:
        yield
    finally:
        for part, call in kept:
            setattr(part, _COMPILED, call)


def _is_compiled(part: nn.Module) -> bool:
    return part.__dict__.get(_COMPILED) is not None


@torch.no_grad()
def _called(vae: Autoencoder, image: Tensor) -> list[nn.Module]:
    """The parts that are called by no other part, those of several layers if there are some."""
    found: dict[nn.Module, None] = {}
    depth = 0

    def before(part: nn.Module, given: Any) -> None:
        nonlocal depth
        if not depth:
            found[part] = None
        depth += 1

    def after(part: nn.Module, given: Any, gave: Any) -> None:
        nonlocal depth
        depth -= 1

    handles = []
    for part in vae.module.modules():
        handles += [part.register_forward_pre_hook(before), part.register_forward_hook(after)]
    try:
        with evaluating(vae.module):
            vae.decode(vae.encode(image.to(vae.device, vae.dtype)))
    finally:
        for handle in handles:
            handle.remove()
    whole = [part for part in found if next(part.children(), None) is not None]
    return whole or list(found)  # a single layer by itself gains nothing
