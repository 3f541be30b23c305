"""The diffusers config of a VAE whose weights are all there is, read off their names and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from equivae.errors import InputError, did_you_mean

__all__ = ["FAMILIES", "PREFIXES", "check_config", "detect_config", "family_config"]

# Where a whole checkpoint keeps its VAE.
PREFIXES = ("first_stage_model.", "vae.")

# What shapes do not tell: the range that each family's diffusion models were trained on.
FAMILIES: dict[str, dict[str, Any]] = {
    "sd": {"scaling_factor": 0.18215, "shift_factor": None, "sample_size": 512},
    "sdxl": {"scaling_factor": 0.13025, "shift_factor": None, "sample_size": 1024},
    "sd3": {"scaling_factor": 1.5305, "shift_factor": 0.0609, "sample_size": 1024},
    "flux": {"scaling_factor": 0.3611, "shift_factor": 0.1159, "sample_size": 1024},
}
_GROUPS = 32  # of every published LDM VAE

_BEYOND = 64  # times the widest weight: no misfit any more, but nonsense that would take for ever
_CHANNELS = ("in_channels", "out_channels", "latent_channels", "norm_num_groups")
# By how a name begins: layouts that are not read.
_FOREIGN = {
    r"lora_|.*\.lora_(up|down|A|B)\.": "a LoRA, which is no autoencoder",
    r"(model\.diffusion_model|transformer|double_blocks|diffusion_model)\.": "a diffusion model alone",
    r"(taesd_)?(encoder|decoder)\.(layers\.)?\d+\.|\d+\.(weight|conv)": "a tiny autoencoder (TAESD), "
    "diffusers' AutoencoderTiny",
    r"encoder\.(downsamples|middle)\.": "Wan's VAE, diffusers' AutoencoderKLWan",
    r"(encoder|decoder)\.(stages|project_in)\.": "a deep compression autoencoder, diffusers' AutoencoderDC",
    r"(encoder|decoder)\.(down_blocks|up_blocks|mid_block)\.\d*\.?(res_blocks|transformers)": "LTX-Video's "
    "VAE, diffusers' AutoencoderKLLTXVideo",
}

Shapes = Mapping[str, tuple[int, ...]]


def family_config(name: str) -> dict[str, Any]:
    """The numbers of one family. Raises `InputError` for an unknown name."""
    if name not in FAMILIES:
        raise InputError(
            f"config={name!r} is neither a folder with a config.json nor a family of VAEs."
            f"{did_you_mean(name, FAMILIES)}"
        )
    return FAMILIES[name]


def detect_config(
    shapes: Shapes, others: frozenset[str] = frozenset(), family: str | None = None
) -> tuple[dict[str, Any], bool]:
    """The config of an `AutoencoderKL` in LDM layout, and whether its family is certain.

    Args:
        shapes: of the VAE's tensors by name, without a prefix.
        others: names of what else is in the checkpoint, which tells the family.
        family: one of `FAMILIES`, when the user said so.

    Raises `InputError` for weights that are no such VAE, with the name of the layout where it is known.
    """
    foreign = next(
        (n for sign, n in _FOREIGN.items() if any(re.match(sign, s) for s in shapes)), ""
    )
    if foreign:
        raise InputError(
            f"its weights are laid out as those of {foreign}; pass its diffusers folder"
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
        return {**shared, **_flux2(shapes, up)}, True
    found, certain = (family, True) if family else _family(latent, quant, others)
    kind = {"_class_name": "AutoencoderKL", "force_upcast": True}
    return {**kind, **shared, **family_config(found)}, certain


def _flux2(shapes: Shapes, up: Mapping[int, int]) -> dict[str, Any]:
    """What FLUX.2's VAE has beside: its latents are normalised in patches; its decoder may be narrower."""
    import diffusers

    if not hasattr(diffusers, "AutoencoderKLFlux2"):
        raise InputError(
            "it is FLUX.2's AutoencoderKLFlux2, which this diffusers does not have; upgrade diffusers"
        )
    widths = [shapes[f"decoder.up.{level}.block.0.conv1.weight"][0] for level in sorted(up)]
    return {"_class_name": "AutoencoderKLFlux2", "decoder_block_out_channels": widths}


def check_config(config: Any, shapes: Shapes, what: str) -> dict[str, Any]:
    """A config whose numbers the weights can have, or `InputError`.

    Args:
        config: as JSON gives it.
        shapes: of the tensors in the file by name.
        what: the config, in words.
    """
    if not isinstance(config, dict):
        raise InputError(f"{what} is no config but a {type(config).__name__}")
    if config.get("_class_name") not in ("AutoencoderKL", "AutoencoderKLFlux2"):
        return config
    most = _BEYOND * max((side for shape in shapes.values() for side in shape), default=0)
    widths = config.get("block_out_channels", [1])
    numbers = {n: config[n] for n in (*_CHANNELS, "layers_per_block") if n in config}
    limits = dict.fromkeys(_CHANNELS, most) | {"layers_per_block": len(shapes)}
    if not isinstance(widths, (list, tuple)) or not 0 < len(widths) <= max(len(shapes), 1):
        raise InputError(f"{what} says block_out_channels={widths!r}, which is no list of widths")
    numbers |= {f"block_out_channels[{i}]": width for i, width in enumerate(widths)}
    for name, value in numbers.items():
        limit = limits.get(name, most)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
            raise InputError(f"{what} says {name}={value!r}, which its weights cannot have")
    for name in ("scaling_factor", "shift_factor"):
        value = config.get(name)
        if value is not None and (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not math.isfinite(value)
            or (name == "scaling_factor" and value <= 0)
        ):
            raise InputError(f"{what} says {name}={value!r}, which is no number to scale by")
    return config


def _family(latent: int, quant: bool, others: frozenset[str]) -> tuple[str, bool]:
    """SD and SDXL have VAEs of the same shapes, and so have SD3 and FLUX: only the rest can tell."""
    if latent == 4 and quant:
        if any(name.startswith("conditioner.") for name in others):
            return "sdxl", True
        return "sd", any(name.startswith("cond_stage_model.") for name in others)
    if any(".joint_blocks." in name for name in others):
        return "sd3", True
    if any(".double_blocks." in name or name.startswith("double_blocks.") for name in others):
        return "flux", True
    return ("flux" if latent == 16 else "sd"), False


def _blocks(shapes: Shapes, pattern: str) -> dict[int, int]:
    """How many blocks each level has."""
    found: dict[int, int] = {}
    for name in shapes:
        match = re.fullmatch(pattern, name)
        if match:
            found[int(match[1])] = found.get(int(match[1]), 0) + 1
    return found
