"""Which layers of a module pad, where in them that happens, and by what."""

from __future__ import annotations

import dis
import sys
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

from torch import nn

from equivae.autoencoder.naming import plain_name

__all__ = [
    "ASYMMETRIC",
    "PAD_CLASSES",
    "LayerPadding",
    "is_downsampler",
    "padding_of",
    "pads",
    "pads_by_itself",
]

PAD_CLASSES: dict[type[nn.Module], str] = {
    nn.ZeroPad2d: "zeros",
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
    nn.CircularPad2d: "circular",
}
# Stable Diffusion's encoder pads one row below and one column at the right before it halves the size.
ASYMMETRIC = [0, 1, 0, 1]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MODES = ("reflect", "replicate", "circular")
_OWN_NAMES = (
    "pad_mode",
    "padding_mode",
)  # where classes keep the mode of the padding in their forward


@dataclass(frozen=True)
class LayerPadding:
    """How one layer pads.

    Attributes:
        mode: `"zeros"`, `"reflect"`, `"replicate"` or `"circular"`.
        place: `"own"` for what a convolution pads by itself, `"around"` for padding layers and for the
            downsamplers' asymmetric row and column, `"inside"` for padding in a class's own forward.
    """

    mode: str
    place: Literal["own", "around", "inside"]


def padding_of(module: nn.Module) -> dict[str, LayerPadding]:
    """The layers that pad, by their plain name."""
    found = {}
    for name, part in module.named_modules():
        layer = _layer(part)
        if layer is not None:
            found[plain_name(name)] = layer
    return found


def pads(module: Any) -> bool:
    """Whether it is a convolution that pads, not one whose class took it over (Wan's does)."""
    if not isinstance(module, _CONVOLUTIONS):
        return False
    amounts = module._reversed_padding_repeated_twice
    own = any(amounts) if isinstance(module.padding, str) else any(module.padding)
    return own or amounts == ASYMMETRIC


def pads_by_itself(module: Any) -> bool:
    """Whether it is a downsampler of diffusers that pads by zeros, at the right and below."""
    if not is_downsampler(module):
        return False
    return bool(module.use_conv and module.padding == 0 and isinstance(module.conv, nn.Conv2d))


def is_downsampler(module: Any) -> bool:
    """Whether it is a diffusers `Downsample2D`; importing diffusers for that would cost a second."""
    loaded: Any = sys.modules.get("diffusers.models.downsampling")
    return loaded is not None and isinstance(module, loaded.Downsample2D)


def _layer(part: Any) -> LayerPadding | None:
    if pads(part):
        asymmetric = part._reversed_padding_repeated_twice == ASYMMETRIC
        return LayerPadding(str(part.padding_mode), "around" if asymmetric else "own")
    if type(part) in PAD_CLASSES:
        return LayerPadding(PAD_CLASSES[type(part)], "around")
    if pads_by_itself(part):
        return LayerPadding("zeros", "around")
    if is_downsampler(part) or not _forward_pads(type(part)) or _by_nothing(part):
        return None
    return LayerPadding(_mode_inside(part), "inside")


def _forward_pads(kind: type[nn.Module]) -> bool:
    """Whether the class's own forward calls `F.pad`."""
    if kind not in _KNOWN:
        _KNOWN[kind] = _calls_pad(kind)
    return _KNOWN[kind]


# Reading the code of a forward costs more than the look at an instance.
_KNOWN: WeakKeyDictionary[type[nn.Module], bool] = WeakKeyDictionary()


def _calls_pad(kind: type[nn.Module]) -> bool:
    before = None
    for step in dis.get_instructions(getattr(kind, "forward", None) or kind.__call__):
        if step.argval == "pad" and before in ("F", "functional"):
            return True
        before = step.argval
    return False


def _by_nothing(part: Any) -> bool:
    """Whether what it pads by is known to be no cell at all."""
    if isinstance(part, _CONVOLUTIONS):
        return all(side == 1 for side in part.kernel_size)
    amounts = getattr(part, "padding", None)
    return isinstance(amounts, (tuple, list)) and not any(amounts)


def _mode_inside(part: Any) -> str:
    named = [getattr(part, name, None) for name in _OWN_NAMES]
    code = getattr(type(part).forward, "__code__", None)
    return next(
        (mode for mode in (*named, *getattr(code, "co_consts", ())) if mode in _MODES), "zeros"
    )
