"""Which diffusion models a VAE belongs to: the numbers that its weights do not hold, and what tells them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from equivae.errors import InputError, did_you_mean

__all__ = [
    "FAMILIES",
    "PREFIXES",
    "Evidence",
    "check_family",
    "families_with",
    "family_config",
    "family_of",
]

# Where a whole checkpoint keeps its VAE.
PREFIXES = ("first_stage_model.", "vae.")

# What shapes do not tell: the range that each family's diffusion models were trained on.
FAMILIES: dict[str, dict[str, Any]] = {
    "sd": {"scaling_factor": 0.18215, "shift_factor": None, "sample_size": 512},
    "sdxl": {"scaling_factor": 0.13025, "shift_factor": None, "sample_size": 1024},
    "sd3": {"scaling_factor": 1.5305, "shift_factor": 0.0609, "sample_size": 1024},
    "flux": {"scaling_factor": 0.3611, "shift_factor": 0.1159, "sample_size": 1024},
}
_CHANNELS = {"sd": 4, "sdxl": 4, "sd3": 16, "flux": 16}

# Where a file's metadata name the model that it belongs to, and by which words.
_KEYS = ("modelspec.architecture", "ss_base_model_version")
_WORDS = (
    (r"stable-diffusion-xl|sdxl", "sdxl"),
    (r"stable-diffusion-v?3|sd[-_]?v?3", "sd3"),
    (r"flux", "flux"),
    (r"stable-diffusion-v?[12]|sd[-_]?v?[12]", "sd"),
)


@dataclass(frozen=True)
class Evidence:
    """What else a file holds that tells where its VAE belongs.

    Attributes:
        others: the names of the weights beside the VAE's.
        metadata: of the safetensors file.
    """

    others: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def has(self, *parts: str) -> bool:
        """Whether one of these is part of the name of a weight beside the VAE's."""
        return any(part in f".{name}" for name in self.others for part in parts)


def family_config(name: str) -> dict[str, Any]:
    """The numbers of one family. Raises `InputError` for an unknown name."""
    if name not in FAMILIES:
        raise InputError(
            f"config={name!r} is neither a folder with a config.json nor a family of VAEs."
            f"{did_you_mean(name, FAMILIES)}"
        )
    return FAMILIES[name]


def families_with(channels: int) -> list[str]:
    """Those whose VAEs have so many latent channels."""
    return [name for name, count in _CHANNELS.items() if count == channels]


def check_family(name: str, channels: int) -> None:
    """Raise `InputError` for a family whose published VAEs have another number of latent channels."""
    fitting = families_with(channels)
    if fitting and name not in fitting:
        raise InputError(
            f"it has {channels} latent channels and {name!r} has {_CHANNELS[name]}; pass "
            f"{' or '.join(f'config={one!r}' for one in fitting)}"
        )


def family_of(channels: int, quant: bool, evidence: Evidence) -> tuple[str, ...]:
    """The families that a VAE can be of, the likeliest first; a single one is certain.

    Args:
        channels: of its latents.
        quant: whether it has quant convs, as Stable Diffusion's and SDXL's have.
        evidence: what else is in the file.
    """
    possible = families_with(channels)
    told = _said(evidence.metadata)
    if told in possible:
        return (told,)
    if channels == 4 and quant and not evidence.has(".edm_mean"):
        unet = evidence.has(".diffusion_model.input_blocks.")
        classes = evidence.has(".label_emb.") and not evidence.has(".embedder.")
        if evidence.has(".conditioner.") or (classes and not evidence.has(".cond_stage_model.")):
            return ("sdxl",)
        if evidence.has(".cond_stage_model.") or (unet and not evidence.has(".label_emb.")):
            return ("sd",)
    if evidence.has(".joint_blocks."):
        return ("sd3",)
    if evidence.has(".double_blocks."):
        return ("flux",)
    return tuple(reversed(possible)) if channels == 16 else tuple(possible or FAMILIES)


def _said(metadata: Mapping[str, str]) -> str | None:
    """The family that the metadata name."""
    text = " ".join(str(metadata.get(key, "")) for key in _KEYS).lower()
    return next((family for words, family in _WORDS if re.search(words, text)), None)
