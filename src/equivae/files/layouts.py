"""How autoencoders are laid out in single files: under which names other tools look for their weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from equivae.files.ldm_names import aliases, is_attention_weight, ldm_name, quant_inside
from equivae.files.wan_names import wan_name

__all__ = ["LAYOUTS", "SingleFileLayout", "is_published", "layout_of"]

Config = Mapping[str, Any]


@dataclass(frozen=True)
class SingleFileLayout:
    """The single files of some classes of diffusers.

    Attributes:
        name: of the layout, in messages.
        file_name: `(name, config)`: diffusers' name of a weight as the published files have it.
        aliases: `(name, config)`: every name under which a file may hold that weight.
        attention_convs: whether its attention's matrices lie in the file as 1x1 convolutions.
        extras: what such a file holds beside the autoencoder's weights.
        published: what the configs of the published models say, the only ones that other tools build.
    """

    name: str
    file_name: Callable[[str, Config], str]
    aliases: Callable[[str, Config], set[str]]
    attention_convs: bool = False
    extras: tuple[str, ...] = ()
    published: tuple[Config, ...] = ()

    def stored(self, name: str, tensor: Tensor) -> Tensor:
        """A weight in the shape that it has in the file."""
        if self.attention_convs and is_attention_weight(name):
            return tensor[:, :, None, None]
        return tensor

    def loaded(self, name: str, tensor: Tensor) -> Tensor:
        """A weight of the file in the shape that diffusers wants."""
        if self.attention_convs and is_attention_weight(name) and tensor.ndim == 4:
            return tensor.flatten(1)
        return tensor


def _ldm(name: str, config: Config) -> str:
    return ldm_name(name, len(config["block_out_channels"]))


def _flux2(name: str, config: Config) -> str:
    return quant_inside(_ldm(name, config))


def _ldm_aliases(name: str, config: Config) -> set[str]:
    return aliases(name, len(config["block_out_channels"]))


def _tiny(name: str, config: Config) -> str:
    found = re.match(r"(encoder|decoder)\.layers\.(\d+)\.(.*)", name)
    if found is None:
        return name
    # The first layer of TAESD's decoder is a clamp, which diffusers has outside.
    return f"taesd_{found[1]}.{int(found[2]) + (found[1] == 'decoder')}.{found[3]}"


def _either(file_name: Callable[[str, Config], str]) -> Callable[[str, Config], set[str]]:
    return lambda name, config: {name, file_name(name, config)}


_LDM_SHAPE = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "mid_block_add_attention": True,
}
_WAN_SHAPE = {"dim_mult": (1, 2, 4, 4), "num_res_blocks": 2, "attn_scales": ()}
_WAN_21 = {**_WAN_SHAPE, "base_dim": 96, "z_dim": 16}
_WAN_22 = {**_WAN_SHAPE, "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True}
_TINY_SHAPE = {
    "encoder_block_out_channels": (64, 64, 64, 64),
    "decoder_block_out_channels": (64, 64, 64, 64),
    "num_encoder_blocks": (1, 3, 3, 3),
    "num_decoder_blocks": (3, 3, 3, 1),
}
LAYOUTS: dict[str, SingleFileLayout] = {
    "AutoencoderKL": SingleFileLayout("LDM", _ldm, _ldm_aliases, True, published=(_LDM_SHAPE,)),
    "AutoencoderKLFlux2": SingleFileLayout(
        "FLUX.2", _flux2, _ldm_aliases, True, published=({**_LDM_SHAPE, "latent_channels": 32},)
    ),
    "AutoencoderKLWan": SingleFileLayout(
        "Wan", wan_name, _either(wan_name), published=(_WAN_21, _WAN_22)
    ),
    "AutoencoderKLQwenImage": SingleFileLayout(
        "Wan", wan_name, _either(wan_name), published=(_WAN_21,)
    ),
    "AutoencoderTiny": SingleFileLayout(
        "TAESD",
        _tiny,
        _either(_tiny),
        extras=("vae_scale", "vae_shift"),
        published=(_TINY_SHAPE,),
    ),
}
"""By the class."""


def layout_of(class_name: str) -> SingleFileLayout | None:
    """That of a class of diffusers, `None` for one that has none here."""
    return LAYOUTS.get(class_name)


def is_published(vae: nn.Module) -> bool:
    """Whether a VAE has the shape of one that other tools know."""
    layout = next((LAYOUTS[k.__name__] for k in type(vae).__mro__ if k.__name__ in LAYOUTS), None)
    config: Config = getattr(vae, "config", {})
    return layout is not None and any(
        all(_plain(config.get(name)) == value for name, value in shape.items())
        for shape in layout.published
    )


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
