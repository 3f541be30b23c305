"""How convolutions make up what lies beyond the border: zeros as trained, or the image itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import nn

from equivae.autoencoder.padded import (
    ASYMMETRIC,
    PAD_CLASSES,
    is_downsampler,
    padding_of,
    pads,
    pads_by_itself,
)
from equivae.errors import InputError, did_you_mean

__all__ = [
    "PaddingMode",
    "apply_padding_mode",
    "check_padding_mode",
    "describing_mode",
    "get_padding_mode",
    "note_padding_mode",
    "set_padding_mode",
    "using_padding_mode",
]

PaddingMode = Literal["zeros", "reflect", "replicate", "circular", "reflect-convs"]

_Place = Literal["own", "around"]
_PADS: dict[str, Callable[[Any], nn.Module]] = {mode: cls for cls, mode in PAD_CLASSES.items()}


def set_padding_mode(vae: nn.Module, mode: PaddingMode) -> None:
    """Let every convolution of a VAE pad by `mode`, for good: no weight changes, only the border does.

    Stable Diffusion's encoder pads at the right and below only where it halves the size. It goes on to do
    so under every mode, since its weights were trained on that grid; what fills the row and the column
    changes. (For that reason no mode makes such an encoder exactly equivariant under flips.) With
    `"reflect-convs"`, the convention of the community's fine-tunes, that row and column stay zeros, and so
    does every padding layer; what convolutions pad by themselves is reflected. Transposed convolutions and
    padding inside a class's own forward stay as they are under every mode, with a warning for the latter.

    A diffusers model notes the mode in its config as `padding_mode`, so that `save_pretrained` writes it and
    `load_vae` applies it again. Plain diffusers reads the folder with a warning about that entry and pads by
    zeros. `set_padding_mode(vae, "zeros")` brings an ordinary VAE back to what it was.

    Args:
        vae: any module with convolutions.
        mode: `"zeros"`, `"reflect"`, `"replicate"`, `"circular"` or `"reflect-convs"`.

    Raises `InputError` for another mode and for a module in which nothing pads.

    ```python
    import equivae

    vae = equivae.zoo.load()
    equivae.set_padding_mode(vae, "reflect")
    vae.save_pretrained("reflecting")
    assert equivae.get_padding_mode(equivae.load_vae("reflecting")) == "reflect"
    ```
    """
    apply_padding_mode(vae, mode)
    found = padding_of(vae)
    wanted = _by_place(mode)["around"]
    inside = [layer for layer in found.values() if layer.place == "inside" and layer.mode != wanted]
    if inside:
        warnings.warn(
            f"{len(inside)} of the {len(found)} layers of {type(vae).__name__} that pad do so inside their "
            f"class's own forward, and go on to pad by {inside[0].mode} under padding_mode={mode!r}.",
            stacklevel=2,
        )


def apply_padding_mode(vae: nn.Module, mode: PaddingMode) -> None:
    """`set_padding_mode` without a word about layers that stay as they are."""
    _apply(vae, mode)
    noted = _noted(vae) is not None
    if hasattr(vae, "register_to_config") and (noted or mode != "zeros"):
        note: Any = vae.register_to_config
        note(padding_mode=mode)


@contextmanager
def using_padding_mode(vae: nn.Module, mode: PaddingMode) -> Iterator[nn.Module]:
    """Let every convolution of a VAE pad by `mode`, then pad as before; see `set_padding_mode`.

    ```python
    import torch

    import equivae

    vae, x = equivae.Autoencoder(equivae.zoo.load()), torch.rand(1, 3, 64, 64)
    before = vae.encode(x)
    with equivae.using_padding_mode(vae.module, "reflect"):
        assert not vae.encode(x).equal(before)
    assert vae.encode(x).equal(before)
    ```
    """
    restore = _apply(vae, mode)
    try:
        yield vae
    finally:
        for undo in reversed(restore):
            undo()


def get_padding_mode(vae: nn.Module) -> str:
    """The mode of all layers that pad, such as `"zeros"`; `"mixed"` where no mode describes them.

    Layers whose class pads in its own forward count: a video VAE most of whose convolutions do is called
    `"mixed"` after `set_padding_mode(vae, "reflect")`, since those go on to pad by zeros.

    ```python
    import equivae

    assert equivae.get_padding_mode(equivae.zoo.load()) == "zeros"
    ```
    """
    layers = padding_of(vae).values()
    modes = {layer.mode for layer in layers}
    if len(modes) < 2:
        return modes.pop() if modes else "zeros"
    own = {layer.mode for layer in layers if layer.place == "own"}
    rest = {layer.mode for layer in layers if layer.place != "own"}
    return "reflect-convs" if (own, rest) == ({"reflect"}, {"zeros"}) else "mixed"


def check_padding_mode(mode: str) -> PaddingMode:
    """The mode itself; `InputError` for what is none."""
    known: tuple[PaddingMode, ...] = get_args(PaddingMode)
    for one in known:
        if mode == one:
            return one
    raise InputError(f"padding_mode={mode!r} is unknown.{did_you_mean(str(mode), known)}")


def note_padding_mode(vae: nn.Module) -> None:
    """Put into the config of a diffusers model what `load_vae` has to apply to get its layers' padding.

    For layers that somebody set by hand, as the community's scripts do: without a note a saved VAE would
    come back padding by zeros. Warns when no mode describes them.
    """
    noted = _noted(vae)
    if not hasattr(vae, "register_to_config") or (
        noted is None and get_padding_mode(vae) == "zeros"
    ):
        return
    if _as_built(vae) is None:
        return
    mode = describing_mode(vae)
    if mode is None:
        warnings.warn(
            f"the layers of {type(vae).__name__} pad in ways that no padding_mode describes, so that a saved "
            "one will pad in another; set one with set_padding_mode.",
            stacklevel=3,
        )
    elif mode != (noted or "zeros"):
        note: Any = vae.register_to_config
        note(padding_mode=mode)


def describing_mode(vae: nn.Module) -> PaddingMode | None:
    """The mode that makes the model that the config builds pad as this one does; `None` if there is none."""
    found = padding_of(vae)
    for mode in dict.fromkeys((_noted(vae) or "zeros", *get_args(PaddingMode))):
        twin = _as_built(vae)
        if twin is None:
            return None
        if mode != "zeros":
            _apply(twin, mode)
        if padding_of(twin) == found:
            return check_padding_mode(mode)
    return None


def _noted(vae: nn.Module) -> Any:
    return getattr(getattr(vae, "config", None), "padding_mode", None)


def _as_built(vae: Any) -> nn.Module | None:
    """The model that the config builds, without weights; `None` where the class cannot do that."""
    config = {k: v for k, v in dict(vae.config).items() if k != "padding_mode"}
    try:
        with torch.device("meta"):
            return type(vae).from_config(config)  # type: ignore[no-any-return]
    except Exception:  # a class of somebody's own, whose config does not build it
        return None


def _by_place(mode: str) -> dict[_Place, str]:
    """What the convolutions' own padding becomes, and what other padding does."""
    if mode == "reflect-convs":
        return {"own": "reflect", "around": "zeros"}
    return {"own": mode, "around": mode}


def _apply(vae: nn.Module, mode: PaddingMode) -> list[Callable[[], None]]:
    """Change every layer that pads; what undoes each change."""
    check_padding_mode(mode)
    wanted = _by_place(mode)
    undo: list[Callable[[], None]] = []
    for module in list(vae.modules()):
        if is_downsampler(module) and _set_downsampler(module, wanted["around"], undo):
            continue
        for name, child in list(module.named_children()):
            if type(child) in PAD_CLASSES:
                layer: Any = child
                _set(module._modules, name, _PADS[wanted["around"]](layer.padding), undo)
        if pads(module):
            asymmetric = getattr(module, "_reversed_padding_repeated_twice", None) == ASYMMETRIC
            place: _Place = "around" if asymmetric else "own"
            _set(module.__dict__, "padding_mode", wanted[place], undo)
    if not undo:
        raise InputError(
            f"{type(vae).__name__} has no convolution that pads by itself, so padding_mode={mode!r} would do "
            "nothing; leave it out."
        )
    return undo


def _set_downsampler(module: Any, mode: str, undo: list[Callable[[], None]]) -> bool:
    """Hand diffusers' own padding of zeros over to the convolution, or back; whether it is of that kind."""
    conv = module.conv
    if pads_by_itself(module):
        if mode == "zeros":
            undo.append(lambda: None)
            return True
        _set(module.__dict__, "padding", 1, undo)
        _set(conv.__dict__, "_reversed_padding_repeated_twice", list(ASYMMETRIC), undo)
        _set(conv.__dict__, "padding_mode", mode, undo)
        return True
    ours = isinstance(conv, nn.Conv2d) and conv._reversed_padding_repeated_twice == ASYMMETRIC
    if ours and mode == "zeros":
        _set(module.__dict__, "padding", 0, undo)
        _set(conv.__dict__, "_reversed_padding_repeated_twice", [0, 0, 0, 0], undo)
        _set(conv.__dict__, "padding_mode", "zeros", undo)
    return bool(ours and mode == "zeros")


def _set(place: Any, name: str, value: Any, undo: list[Callable[[], None]]) -> None:
    old = place[name]
    place[name] = value
    undo.append(lambda: place.__setitem__(name, old))
