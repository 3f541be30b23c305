"""How convolutions make up what lies beyond the border: zeros as trained, or the image itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

from diffusers.models.downsampling import Downsample2D
from torch import nn

from equivae.errors import InputError, did_you_mean

__all__ = ["PaddingMode", "check_padding_mode", "get_padding_mode", "set_padding_mode"]
__all__ += ["using_padding_mode"]

PaddingMode = Literal["zeros", "reflect", "replicate"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_PADS: dict[str, Callable[[Any], nn.Module]] = {
    "zeros": nn.ZeroPad2d,
    "reflect": nn.ReflectionPad2d,
    "replicate": nn.ReplicationPad2d,
}
_PAD_CLASSES = {
    nn.ZeroPad2d: "zeros",
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
}
# Stable Diffusion's encoder pads one row below and one column at the right before it halves the size.
_ASYMMETRIC = [0, 1, 0, 1]


def set_padding_mode(vae: nn.Module, mode: PaddingMode) -> None:
    """Let every convolution of a VAE pad by `mode`, for good: no weight changes, only the border does.

    Stable Diffusion's encoder pads at the right and below only where it halves the size. It goes on to do
    so under every mode, since its weights were trained on that grid; what fills the row and the column
    changes. (For that reason no mode makes such an encoder exactly equivariant under flips.) Transposed
    convolutions and padding inside a class's own forward stay as they are.

    A diffusers model notes the mode in its config as `padding_mode`, so that `save_pretrained` writes it and
    `load_vae` applies it again. Plain diffusers reads the folder with a warning about that entry and pads by
    zeros. `set_padding_mode(vae, "zeros")` brings an ordinary VAE back to what it was.

    Args:
        vae: any module with convolutions.
        mode: `"zeros"`, `"reflect"` or `"replicate"`.

    Raises `InputError` for another mode and for a module in which nothing pads.

    ```python
    import equivae

    vae = equivae.zoo.load()
    equivae.set_padding_mode(vae, "reflect")
    vae.save_pretrained("reflecting")
    assert equivae.get_padding_mode(equivae.load_vae("reflecting")) == "reflect"
    ```
    """
    _apply(vae, mode)
    noted = getattr(getattr(vae, "config", None), "padding_mode", None) is not None
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
    """The mode of all layers that pad, such as `"zeros"`; `"mixed"` where they differ.

    ```python
    import equivae

    assert equivae.get_padding_mode(equivae.zoo.load()) == "zeros"
    ```
    """
    modes: set[str] = set()
    for module in vae.modules():
        if _pads(module):
            modes.add(str(module.padding_mode))
        elif type(module) in _PAD_CLASSES:
            modes.add(_PAD_CLASSES[type(module)])
        elif _pads_by_itself(module):
            modes.add("zeros")
    return modes.pop() if len(modes) == 1 else ("mixed" if modes else "zeros")


def check_padding_mode(mode: str) -> PaddingMode:
    """The mode itself; `InputError` for what is none."""
    known: tuple[PaddingMode, ...] = get_args(PaddingMode)
    for one in known:
        if mode == one:
            return one
    raise InputError(f"padding_mode={mode!r} is unknown.{did_you_mean(str(mode), known)}")


def _apply(vae: nn.Module, mode: PaddingMode) -> list[Callable[[], None]]:
    """Change every layer that pads; what undoes each change."""
    check_padding_mode(mode)
    undo: list[Callable[[], None]] = []
    for module in list(vae.modules()):
        if isinstance(module, Downsample2D) and _set_downsampler(module, mode, undo):
            continue
        for name, child in list(module.named_children()):
            if type(child) in _PAD_CLASSES:
                pads: Any = child
                _set(module._modules, name, _PADS[mode](pads.padding), undo)
        if _pads(module):
            _set(module.__dict__, "padding_mode", mode, undo)
    if not undo:
        raise InputError(
            f"{type(vae).__name__} has no convolution that pads, so padding_mode={mode!r} would do nothing; "
            "leave it out."
        )
    return undo


def _set_downsampler(module: Any, mode: str, undo: list[Callable[[], None]]) -> bool:
    """Hand diffusers' own padding of zeros over to the convolution, or back; whether it is of that kind."""
    conv = module.conv
    if _pads_by_itself(module):
        if mode == "zeros":
            undo.append(lambda: None)
            return True
        _set(module.__dict__, "padding", 1, undo)
        _set(conv.__dict__, "_reversed_padding_repeated_twice", list(_ASYMMETRIC), undo)
        _set(conv.__dict__, "padding_mode", mode, undo)
        return True
    ours = isinstance(conv, nn.Conv2d) and conv._reversed_padding_repeated_twice == _ASYMMETRIC
    if ours and mode == "zeros":
        _set(module.__dict__, "padding", 0, undo)
        _set(conv.__dict__, "_reversed_padding_repeated_twice", [0, 0, 0, 0], undo)
        _set(conv.__dict__, "padding_mode", "zeros", undo)
    return bool(ours and mode == "zeros")


def _pads(module: Any) -> bool:
    """Whether it is a convolution that pads, not one whose class took it over (Wan does)."""
    if not isinstance(module, _CONVOLUTIONS):
        return False
    pads = module._reversed_padding_repeated_twice
    own = any(pads) if isinstance(module.padding, str) else any(module.padding)
    return own or pads == _ASYMMETRIC


def _pads_by_itself(module: Any) -> bool:
    if not isinstance(module, Downsample2D):
        return False
    return bool(module.use_conv and module.padding == 0 and isinstance(module.conv, nn.Conv2d))


def _set(place: Any, name: str, value: Any, undo: list[Callable[[], None]]) -> None:
    old = place[name]
    place[name] = value
    undo.append(lambda: place.__setitem__(name, old))
