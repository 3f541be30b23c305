"""The layers of an image autoencoder that work at latent resolution, run without the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder.modes import measuring
from equivae.autoencoder.view import Autoencoder
from equivae.errors import InputError

__all__ = ["Bottleneck", "NoBottleneckError", "find_bottleneck"]


class NoBottleneckError(InputError):
    """The autoencoder has no layers at latent resolution that can be run by themselves."""


@dataclass(frozen=True)
class Bottleneck:
    """Where an encoder's last layers and a decoder's first ones begin and end.

    An autoencoder with `k` changes of size spends most of its time above latent resolution. What lies
    below, `E = tail ∘ front` and `D = back ∘ head`, can be run by itself: `tail` takes the features that
    the last change of size gives to the latent, `head` takes the latent to the features that the first
    upsampling gets. Nothing is copied: gradients reach the module's own weights.

    Attributes:
        vae: the autoencoder.
        entry: name of the module that gives the features which `tail` begins with.
        skipped: names of the modules before it, and the shape of what each returns.
        exit: name of the module that gives the features which `head` ends with.
        size: `(C, H, W)` of the images that were looked at.

    ```python
    import torch

    import equivae
    from equivae.autoencoder import find_bottleneck

    vae = equivae.Autoencoder(equivae.zoo.load())
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    bottleneck = find_bottleneck(vae, x)
    with torch.no_grad():
        assert torch.allclose(bottleneck.tail(bottleneck.front(x)), vae.encode(x), atol=1e-5)
    assert bottleneck.head(vae.encode(x)).shape[-2:] == vae.encode(x).shape[-2:]
    ```
    """

    vae: Autoencoder
    entry: str
    skipped: dict[str, tuple[int, ...]]
    exit: str
    size: tuple[int, ...]

    def front(self, images: Tensor) -> Tensor:
        """Features `(B, k, h, w)` of images `(B, C, H, W)`, which `tail` turns into the latent."""
        return _until(self.vae, self.entry, self.vae.encode, images)

    def tail(self, features: Tensor) -> Tensor:
        """Latents `(B, c, h, w)` of what `front` gave, for images of the size that was looked at."""
        images = features.new_zeros(()).expand(len(features), *self.size)
        with _answering(self.vae.module, self.entry, features, self.skipped):
            return self.vae.encode(images)

    def head(self, latents: Tensor) -> Tensor:
        """Features `(B, k, h, w)` of latents `(B, c, h, w)`, those that the decoder upsamples first."""
        return _until(self.vae, self.exit, self.vae.decode, latents)


def find_bottleneck(vae: Autoencoder, images: Tensor) -> Bottleneck:
    """Find the layers at latent resolution by watching an encode and a decode.

    Args:
        vae: an image autoencoder whose encoder and decoder change the size step by step.
        images: `(B, C, H, W)` in [-1, 1], of the size that the layers will be run on.

    Raises `NoBottleneckError` if there are none, or if they cannot be run by themselves.
    """
    if vae.layout != "image":
        raise NoBottleneckError(
            f"only image autoencoders have a bottleneck; this one takes {vae.layout}."
        )
    with measuring(vae.module):
        some = images[:1].expand(2, *images.shape[1:])  # two, since one is never sliced
        encoding, latents = _watch(vae.module, vae.encode, some)
        decoding, _ = _watch(vae.module, vae.decode, latents)
        cells = tuple(latents.shape[2:])
        exit = _last_before_upsampling(decoding, cells)
        for place, call in enumerate(encoding):
            if call.name in _repeated(encoding) or not call.shrinks_to(cells):
                continue
            found = Bottleneck(
                vae, call.name, _before(encoding, place), exit, tuple(some.shape[1:])
            )
            if _agrees(found, some, latents):
                return found
    raise NoBottleneckError(
        f"{type(vae.module).__name__} has no layers at latent resolution that can be run by themselves; "
        "train it as a whole, with bottleneck_steps=0."
    )


@dataclass(frozen=True)
class _Call:
    name: str
    parents: tuple[str, ...]
    given: tuple[int, ...]
    gave: tuple[int, ...]

    def shrinks_to(self, cells: tuple[int, ...]) -> bool:
        return self.gave[2:] == cells and _larger(self.given[2:], cells)


def _larger(shape: Sequence[int], cells: Sequence[int]) -> bool:
    """Whether it is the same grid in finer cells, and no layout of an attention's own."""
    if len(shape) != len(cells):
        return False
    ratios = {divmod(side, count) for side, count in zip(shape, cells, strict=True)}
    return len(ratios) == 1 and all(ratio > 1 and not rest for ratio, rest in ratios)


def _watch(module: nn.Module, call: Any, given: Tensor) -> tuple[list[_Call], Tensor]:
    """The calls of all modules within, in the order in which they ended."""
    calls: list[_Call] = []
    running: list[str] = []
    handles = []

    def watch(name: str, part: nn.Module) -> None:
        def before(part: nn.Module, args: Any) -> None:
            running.append(name)

        def after(part: nn.Module, args: Any, output: Any) -> None:
            running.pop()
            first = args[0] if args else None
            if isinstance(first, Tensor) and isinstance(output, Tensor):
                shapes = tuple(first.shape), tuple(output.shape)
                calls.append(_Call(name, tuple(running), *shapes))

        handles.append(part.register_forward_pre_hook(before))
        handles.append(part.register_forward_hook(after))

    for name, part in module.named_modules():
        if name:
            watch(name, part)
    try:
        return calls, call(given)
    finally:
        for handle in handles:
            handle.remove()


def _repeated(calls: Sequence[_Call]) -> set[str]:
    names = [call.name for call in calls]
    return {name for name in names if names.count(name) > 1}


def _before(calls: Sequence[_Call], place: int) -> dict[str, tuple[int, ...]]:
    """The outermost modules that ended before the one at `place`, and the shape that each gave."""
    entry = calls[place]
    around = set(entry.parents)
    return {call.name: call.gave[1:] for call in calls[:place] if set(call.parents) <= around}


def _last_before_upsampling(calls: Sequence[_Call], cells: tuple[int, ...]) -> str:
    found = ""
    for call in calls:
        if _larger(call.given[2:], cells) or _larger(call.gave[2:], cells):
            break
        if call.gave[2:] == cells and call.name not in _repeated(calls):
            found = call.name
    if not found:
        raise NoBottleneckError(
            "the decoder upsamples at once; it has no layers at latent resolution."
        )
    return found


def _agrees(found: Bottleneck, images: Tensor, latents: Tensor) -> bool:
    """Whether the tail gives the latents, and listens to its features."""
    try:
        features = found.front(images)
        given = found.tail(features)
        close = torch.allclose(given, latents, rtol=1e-3, atol=1e-4)
        changed = found.tail(features + 1.0)
    except Exception:  # the layers around it did not expect to be left out
        return False
    return close and not changed.equal(given)


class _Reached(Exception):
    """Carries a module's output out of a call that is not needed to its end."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def _until(vae: Autoencoder, name: str, call: Any, given: Tensor) -> Tensor:
    """What the module of that name gives, the rest of the call left out."""

    def stop(part: nn.Module, args: Any, output: Tensor) -> None:
        raise _Reached(output)

    _ = vae.geometry  # found by whole calls, so before
    handle = vae.module.get_submodule(name).register_forward_hook(stop)
    try:
        call(given)
    except _Reached as reached:
        return reached.output
    finally:
        handle.remove()
    raise InputError(f"{name} was not called.")


@contextmanager
def _answering(
    module: nn.Module, entry: str, features: Tensor, skipped: dict[str, tuple[int, ...]]
) -> Iterator[None]:
    """Within it the entry gives the features, and modules before it give zeros, without any work."""
    parts = {name: module.get_submodule(name) for name in (entry, *skipped)}
    empty = features.new_zeros(())
    answers = {name: empty.expand(len(features), *shape) for name, shape in skipped.items()}
    # A copy, since an activation behind it may work in place. Never channels-last: on a CPU, torch 2.13's
    # group norm crashes in its backward pass when such an input needs no gradient.
    answers[entry] = features.clone(memory_format=torch.contiguous_format)
    # A wrapped forward, such as accelerate's, is the instance's own and comes back afterwards.
    own = {name: part.__dict__.get("forward") for name, part in parts.items()}
    try:
        for name, part in parts.items():
            part.forward = lambda *_, _answer=answers[name], **__: _answer  # type: ignore[method-assign]
        yield
    finally:
        for name, part in parts.items():
            del part.forward
            if own[name] is not None:
                part.__dict__["forward"] = own[name]
