"""Configs that come with a file: whether they can be those of its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from equivae.errors import InputError
from equivae.files.layouts import LAYOUTS

__all__ = ["check_config"]

_BEYOND = 64  # times the widest weight: no misfit any more, but nonsense that would take for ever
_WIDTHS = (
    *("in_channels", "out_channels", "latent_channels", "norm_num_groups"),
    *("input_channels", "base_dim", "decoder_base_dim", "z_dim", "patch_size"),
)
_LISTS = (
    *("block_out_channels", "decoder_block_out_channels", "encoder_block_out_channels"),
    *("dim_mult", "num_encoder_blocks", "num_decoder_blocks"),
)
_COUNTS = ("layers_per_block", "num_res_blocks", "num_encoder_blocks", "num_decoder_blocks")

Shapes = Mapping[str, tuple[int, ...]]


def check_config(config: Any, shapes: Shapes, what: str) -> dict[str, Any]:
    """A config whose numbers the weights can have, or `InputError`.

    Args:
        config: as JSON gives it.
        shapes: of the tensors in the file by name.
        what: the config, in words.
    """
    if not isinstance(config, dict):
        raise InputError(f"{what} is not a config but of type {type(config).__name__}")
    if not isinstance(config.get("_class_name"), str) or config["_class_name"] not in LAYOUTS:
        return config
    widest = max((side for shape in shapes.values() for side in shape), default=0)
    for name, value in _numbers(config, len(shapes), what):
        most = len(shapes) if name.partition("[")[0] in _COUNTS else _BEYOND * widest
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise InputError(f"{what} says {name}={value!r}, which its weights cannot have")
    for name in ("scaling_factor", "shift_factor"):
        value = config.get(name)
        if value is not None and (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not math.isfinite(value)
            or (name == "scaling_factor" and value <= 0)
        ):
            raise InputError(f"{what} says {name}={value!r}, which is not a number to scale by")
    return config


def _numbers(config: dict[str, Any], weights: int, what: str) -> Iterator[tuple[str, Any]]:
    """Every number of channels or layers that it names."""
    for name in (*_WIDTHS, "layers_per_block", "num_res_blocks"):
        value = config.get(name)
        if name == "patch_size" and isinstance(value, (list, tuple)):
            yield from ((f"{name}[{i}]", side) for i, side in enumerate(value[:3]))
        elif name in config and value is not None:
            yield name, value
    for name in _LISTS:
        widths = config.get(name)
        if name not in config or widths is None:
            continue
        if not isinstance(widths, (list, tuple)) or not 0 < len(widths) <= max(weights, 1):
            raise InputError(f"{what} says {name}={widths!r}, which is not a list of widths")
        yield from ((f"{name}[{i}]", width) for i, width in enumerate(widths))
