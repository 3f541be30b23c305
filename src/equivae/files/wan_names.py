"""What the weights of Wan's and Qwen-Image's VAEs are called in the files that were published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["wan_name"]

_INSIDE_A_BLOCK = {
    "norm1.gamma": "residual.0.gamma",
    "conv1.": "residual.2.",
    "norm2.gamma": "residual.3.gamma",
    "conv2.": "residual.6.",
    "conv_shortcut.": "shortcut.",
}
_OUTSIDE = {
    "conv_in.": "conv1.",
    "norm_out.gamma": "head.0.gamma",
    "conv_out.": "head.2.",
}
_QUANT = {"quant_conv.": "conv1.", "post_quant_conv.": "conv2."}


def wan_name(name: str, config: Mapping[str, Any]) -> str:
    """diffusers' name of a weight as Wan's own code has it: what ComfyUI reads.

    Args:
        name: of an `AutoencoderKLWan` or `AutoencoderKLQwenImage`.
        config: its config. Wan 2.2's blocks (`is_residual`) lie in one another, Wan 2.1's in a row.
    """
    half, _, rest = name.partition(".")
    if half not in ("encoder", "decoder"):
        return _replaced(name, _QUANT)
    middle = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", rest)
    if middle:
        kind, index, rest = middle[1], int(middle[2]), middle[3]
        place = f"middle.{2 * index + (kind == 'attentions')}"
        return f"{half}.{place}.{_replaced(rest, _INSIDE_A_BLOCK)}"
    block = re.match(
        r"(down|up)_blocks\.(\d+)\.(?:(resnets|upsamplers)\.(\d+)\.|(downsampler|upsampler)\.)?(.*)",
        rest,
    )
    if not block:
        return f"{half}.{_replaced(rest, _OUTSIDE)}"
    samples = f"{block[1]}samples"
    inside = _replaced(block[6], _INSIDE_A_BLOCK)
    if block[3] is None and block[5] is None:  # an encoder's blocks are a row in diffusers too
        return f"{half}.{samples}.{block[2]}.{inside}"
    blocks = config["num_res_blocks"] + (half == "decoder")
    index = int(block[4]) if block[3] == "resnets" else blocks
    if config.get("is_residual"):
        return f"{half}.{samples}.{block[2]}.{samples}.{index}.{inside}"
    return f"{half}.{samples}.{int(block[2]) * (blocks + 1) + index}.{inside}"


def _replaced(name: str, words: Mapping[str, str]) -> str:
    for ours, theirs in words.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name
