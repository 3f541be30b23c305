"""Adapters for diffusers classes whose `decode` does not give back what their `encode` takes.

They are recognised by what they have, like everything else; a user's own adapter stands above them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivae.autoencoder.calls import (
    decode_by_output,
    encode_by_output,
    parameters_of,
    register_adapter,
)
from equivae.autoencoder.posteriors import repeatable

__all__ = ["register_built_in_adapters"]


def register_built_in_adapters() -> None:
    """Called once, when `equivae.autoencoder` is imported."""
    register_adapter(_pads_in_front, _encode_padded, decode_by_output)
    register_adapter(_has_mel_front_end, _encode_mel, decode_by_output)
    register_adapter(_decodes_at_a_timestep, encode_by_output, _decode_at_a_timestep)
    register_adapter(_crops_what_is_not_causal, encode_by_output, _decode_whole)


def _pads_in_front(module: nn.Module) -> bool:
    """VidTok, causal: `forward` repeats the first frame before it encodes, `encode` leaves that out."""
    # A diffusers model warns when an attribute of its config is asked for as its own.
    own = vars(module)
    return (
        bool(own.get("is_causal")) and {"temporal_compression_ratio", "regularizer"} <= own.keys()
    )


def _encode_padded(
    module: Any, images: Tensor, sample: bool, generator: torch.Generator | None
) -> Tensor:
    before = module.temporal_compression_ratio - 1
    if images.ndim == 5:
        images = F.pad(images, (0, 0, 0, 0, before, 0), mode="replicate")
    return encode_by_output(module, images, sample, generator)


def _has_mel_front_end(module: nn.Module) -> bool:
    """MMAudio: `encode` takes a wave and `decode` gives a mel spectrogram, which a vocoder reads."""
    inner = getattr(module, "vae", None)
    return hasattr(module, "mel_converter") and all(
        callable(getattr(inner, call, None)) for call in ("encode", "decode")
    )


def _encode_mel(
    module: Any, images: Tensor, sample: bool, generator: torch.Generator | None
) -> Tensor:
    """Latents of mel spectrograms `(B, mel_bins, T)`, which the front end would make of a wave."""
    mean, log_variance = module.vae.encode(images).chunk(2, dim=1)
    if not sample:
        return mean  # type: ignore[no-any-return]
    std = (0.5 * log_variance.clamp(-30.0, 20.0)).exp()
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
    return mean + std * noise  # type: ignore[no-any-return]


_DECODE_TIMESTEP = 0.05  # what the pipelines of LTX pass


def _decodes_at_a_timestep(module: nn.Module) -> bool:
    """LTX 0.9.1 and later: the decoder takes a timestep, or draws noise of its own."""
    config = getattr(module, "config", None)
    return "temb" in parameters_of(module, "decode") and bool(
        getattr(config, "timestep_conditioning", False)
        or any(getattr(config, "decoder_inject_noise", None) or ())
    )


def _decode_at_a_timestep(module: Any, latents: Tensor) -> Tensor:
    options = {}
    if module.config.timestep_conditioning:
        options["temb"] = latents.new_full((latents.shape[0],), _DECODE_TIMESTEP)
    # A decoder that draws noise gets the same noise every time, so that measurements repeat.
    with repeatable(0, latents):
        return module.decode(latents, **options).sample  # type: ignore[no-any-return]


def _crops_what_is_not_causal(module: nn.Module) -> bool:
    """The audio VAE of LTX-2 with another causal axis than time, or none."""
    axis = getattr(getattr(module, "decoder", None), "causality_axis", None)
    return hasattr(module, "mel_compression_ratio") and axis not in (None, "height")


def _decode_whole(module: Any, latents: Tensor) -> Tensor:
    """Its decoder cuts off the three frames that a causal time axis lacks, though here time is not causal."""
    decoder = module.decoder
    axis = decoder.causality_axis
    decoder.causality_axis = None  # read for that cut alone; the convolutions hold their own
    try:
        return decode_by_output(module, latents)
    finally:
        decoder.causality_axis = axis
