"""What the weights of an `AutoencoderKL` are called in single files: LDM's names, diffusers', older ones."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = [
    "aliases",
    "in_diffusers_names",
    "is_attention_weight",
    "ldm_name",
    "ldm_names",
    "quant_inside",
]

_NAMES = [
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d+)\.resnets\.(\d+)", r"up.\1.block.\2"),
    (r"up_blocks\.(\d+)\.upsamplers\.0", r"up.\1.upsample"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
]
# Of diffusers before 0.18.
_OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
# FLUX.2's own file has its quant convs inside the halves.
_INSIDE = {"quant_conv.": "encoder.quant_conv.", "post_quant_conv.": "decoder.post_quant_conv."}


def ldm_name(name: str, levels: int) -> str:
    """diffusers' name of a weight in LDM's words; a name that is LDM's stays."""
    if ".down_blocks." not in name and ".up_blocks." not in name and ".mid_block." not in name:
        return name.replace("conv_norm_out", "norm_out")
    for pattern, words in _NAMES:
        name = re.sub(pattern, words, name)
    # LDM numbers the decoder's levels by their resolution, so that the last is applied first.
    return re.sub(r"decoder\.up\.(\d+)", lambda m: f"decoder.up.{levels - 1 - int(m[1])}", name)


def ldm_names(names: Iterable[str]) -> dict[str, str]:
    """LDM's names of the weights of a file, by those that they have in it, old or new, of either kind."""
    names = list(names)
    levels = {m[1] for n in names if (m := re.match(r"decoder\.up_blocks\.(\d+)\.", n))}
    return {name: ldm_name(_modern(name), len(levels)) for name in names}


def aliases(name: str, levels: int) -> set[str]:
    """All names under which a file may hold the weight that diffusers calls `name`."""
    found = {name, ldm_name(name, levels)}
    for new, old in _OLD_ATTENTION.items():
        if f".attentions.0.{new}." in name:
            found.add(name.replace(f".{new}.", f".{old}."))
    return found | {quant_inside(name)}


def quant_inside(name: str) -> str:
    """The name of a weight in a file that has its quant convs inside the halves, as FLUX.2's."""
    for outside, inside in _INSIDE.items():
        if name.startswith(outside):
            return inside + name.removeprefix(outside)
    return name


def in_diffusers_names(names: Iterable[str]) -> bool:
    """Whether these are diffusers' names of the weights of an autoencoder."""
    signs = ("encoder.down_blocks.", "decoder.up_blocks.", "encoder.layers.", "decoder.layers.")
    return any(name.startswith(signs) for name in names)


def is_attention_weight(name: str) -> bool:
    """Whether a weight of diffusers' name is a matrix there and a 1x1 convolution in LDM's files."""
    return ".attentions.0.to_" in name and name.endswith("weight")


def _modern(name: str) -> str:
    for new, old in _OLD_ATTENTION.items():
        name = name.replace(f".attentions.0.{old}.", f".attentions.0.{new}.")
    for outside, inside in _INSIDE.items():
        if name.startswith(inside):
            name = outside + name.removeprefix(inside)
    return name
