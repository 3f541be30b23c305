"""The diffusers config of a VAE whose weights are all there is, read off their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from equivae.errors import InputError
from equivae.files.families import Evidence, check_family, family_config, family_of

__all__ = ["detect_config"]

_GROUPS = 32  # of every published LDM VAE

# By how a name begins: what is no autoencoder, and layouts that do not tell their config.
_OTHERS = {
    r"lora_|.*\.lora_(up|down|A|B)\.": "a LoRA",
    r"(model\.diffusion_model|transformer|double_blocks|diffusion_model)\.": "a diffusion model alone",
}
_FOREIGN = {
    r"(taesd_)?(encoder|decoder)\.(layers\.)?\d+\.|\d+\.(weight|conv)": "a tiny autoencoder (TAESD), "
    "diffusers' AutoencoderTiny",
    r"encoder\.(downsamples|middle)\.": "Wan's VAE, diffusers' AutoencoderKLWan",
    r"(encoder|decoder)\.(stages|project_in)\.": "a deep compression autoencoder, diffusers' AutoencoderDC",
    r"(encoder|decoder)\.(down_blocks|up_blocks|mid_block)\.\d*\.?(res_blocks|transformers)": "LTX-Video's "
    "VAE, diffusers' AutoencoderKLLTXVideo",
}

Shapes = Mapping[str, tuple[int, ...]]


def detect_config(
    shapes: Shapes, evidence: Evidence | None = None, family: str | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config of an `AutoencoderKL` in LDM layout, and the families that it can be of, if several.

    Args:
        shapes: of the VAE's tensors by name, without a prefix.
        evidence: what else is in the file, which tells the family.
        family: one of `FAMILIES`, when the user said so.

    Raises `InputError` for weights that are no such VAE, with the name of the layout where it is known, and
    for a family that it cannot be of.
    """
    other, foreign = _known(_OTHERS, shapes), _known(_FOREIGN, shapes)
    if other:
        raise InputError(f"its weights are those of {other}; pass an autoencoder")
    if foreign:
        raise InputError(
            f"its weights are laid out as those of {foreign}; pass config=FOLDER with its config.json, or "
            "its diffusers folder"
        )
    down = _blocks(shapes, r"encoder\.down\.(\d+)\.block\.(\d+)\.conv1\.weight")
    up = _blocks(shapes, r"decoder\.up\.(\d+)\.block\.(\d+)\.conv1\.weight")
    needed = ("encoder.conv_in.weight", "encoder.conv_out.weight", "decoder.conv_in.weight")
    missing = [name for name in (*needed, "decoder.conv_out.weight") if name not in shapes]
    if missing or not down or not up:
        what = missing[0] if missing else "encoder.down.0.block.0.conv1.weight"
        raise InputError(f"it has no {what}")
    layers, channels = down[0], []
    for level in sorted(down):
        channels.append(shapes[f"encoder.down.{level}.block.0.conv1.weight"][0])
    if {*down.values()} != {layers} or {*up.values()} != {layers + 1} or len(up) != len(down):
        raise InputError(
            f"its {len(down)} levels down and {len(up)} up are not those of an AutoencoderKL"
        )
    if channels[0] % _GROUPS:
        raise InputError(
            f"{channels[0]} channels do not divide into {_GROUPS} groups, so the number of groups cannot be "
            "told from the weights; pass config=FOLDER with a config.json"
        )
    latent = shapes["decoder.conv_in.weight"][1]
    quant = "quant_conv.weight" in shapes
    shared = {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": latent,
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "norm_num_groups": _GROUPS,
        "use_quant_conv": quant,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "mid_block_add_attention": "encoder.mid.attn_1.q.weight" in shapes,
    }
    if "bn.running_mean" in shapes:
        return {**shared, **_flux2(shapes, up)}, ()
    if family is not None:
        check_family(family, latent)
    found = family_of(latent, quant, evidence or Evidence()) if family is None else (family,)
    kind = {"_class_name": "AutoencoderKL", "force_upcast": True}
    config = {**kind, **shared, **family_config(found[0])}
    return config, found if len(found) > 1 else ()


def _known(signs: Mapping[str, str], shapes: Shapes) -> str | None:
    """The first whose sign one of the names begins with."""
    return next((n for sign, n in signs.items() if any(re.match(sign, s) for s in shapes)), None)


def _flux2(shapes: Shapes, up: Mapping[int, int]) -> dict[str, Any]:
    """What FLUX.2's VAE has beside: its latents are normalised in patches; its decoder may be narrower."""
    import diffusers

    if not hasattr(diffusers, "AutoencoderKLFlux2"):
        raise InputError(
            "it is FLUX.2's AutoencoderKLFlux2, which this diffusers does not have; upgrade diffusers"
        )
    widths = [shapes[f"decoder.up.{level}.block.0.conv1.weight"][0] for level in sorted(up)]
    return {"_class_name": "AutoencoderKLFlux2", "decoder_block_out_channels": widths}


def _blocks(shapes: Shapes, pattern: str) -> dict[int, int]:
    """How many blocks each level has."""
    found: dict[int, int] = {}
    for name in shapes:
        match = re.fullmatch(pattern, name)
        if match:
            found[int(match[1])] = found.get(int(match[1]), 0) + 1
    return found
