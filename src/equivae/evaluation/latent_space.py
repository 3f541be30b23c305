"""What a fine-tune did to the latent space: whether it moved, and which scaling it asks for now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from equivae.autoencoder import Autoencoder
from equivae.autoencoder.conventions import scales_by_itself
from equivae.autoencoder.naming import plain_name
from equivae.autoencoder.padded import padding_of
from equivae.autoencoder.padding import get_padding_mode, note_padding_mode
from equivae.data.sources import ImageDataset
from equivae.errors import InputError
from equivae.evaluation.latent_statistics import LatentStatistics, latent_statistics

__all__ = ["LatentSpace", "settle_latent_space"]

_NUMBERS = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")


@dataclass(frozen=True)
class LatentSpace:
    """What became of the latents.

    Attributes:
        unchanged: the encoder is bit for bit that of the base and pads as it did, so that every image has
            the latent that it had, and diffusion models trained on the base stay valid.
        padding_mode: how the saved VAE pads.
        base_padding_mode: how the base did.
        statistics: of the latents, where they changed.
        before: the scaling in the base's config, as far as it has any.
        after: the scaling in the saved config.
    """

    unchanged: bool
    padding_mode: str
    base_padding_mode: str
    statistics: LatentStatistics | None = None
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """For the report: flat, and nothing that is the same before and after twice."""
        shown: dict[str, Any] = {
            "encoder_unchanged": self.unchanged,
            "padding_mode": self.padding_mode,
        }
        for name in self.after:
            shown[name] = self.after[name]
            if self.after[name] != self.before[name]:
                shown[f"{name} of the base"] = self.before[name]
        return shown


def settle_latent_space(
    original: Autoencoder,
    tuned: Autoencoder,
    images: ImageDataset,
    *,
    update_scaling_factor: bool,
    eval_batch_size: int,
    seed: int,
) -> LatentSpace:
    """Compare the encoders and, if they differ, measure the latents and put their scaling into the config.

    Only numbers that the base's config uses are written, since those are what the pipelines of its family
    read: a shift factor or numbers per channel where it has them, a scaling factor where it is not 1.
    """
    module = tuned.module
    note_padding_mode(module)
    mode, base_mode = get_padding_mode(module), get_padding_mode(original.module)
    before = _numbers(module)
    padded_alike = padding_of(module) == padding_of(original.module)
    unchanged = padded_alike and same_encoder(original, tuned)
    if unchanged:
        return LatentSpace(True, mode, base_mode, None, before, before)
    try:
        statistics = latent_statistics(
            module, images, eval_batch_size=eval_batch_size, seed=seed, progress=False
        )
    except InputError:  # latents without a spread; the report shows that such a VAE is broken
        return LatentSpace(False, mode, base_mode, None, before, before)
    if update_scaling_factor:
        _write(module, statistics)
    return LatentSpace(False, mode, base_mode, statistics, before, _numbers(module))


def same_encoder(a: Autoencoder, b: Autoencoder) -> bool:
    """Whether two autoencoders of one class encode with the very same numbers."""
    # Without any, gradients cannot tell the encoder's weights, and all of them have to be the same.
    names = a.geometry.encoder_parameters or {name for name, _ in a.module.named_parameters()}
    heads = {name.split(".")[0] for name in names}  # a normalisation's running statistics count too
    ours: dict[str, torch.Tensor] = {n: p for n, p in a.module.named_parameters() if n in names}
    ours |= {n: t for n, t in a.module.named_buffers() if n.split(".")[0] in heads}
    named = (*b.module.named_parameters(), *b.module.named_buffers())
    theirs = {plain_name(name): tensor for name, tensor in named}
    return all(_same(tensor, theirs[plain_name(name)]) for name, tensor in ours.items())


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(a.detach().eq(b.detach().to(a)).all())


def _numbers(module: nn.Module) -> dict[str, Any]:
    config = getattr(module, "config", None)
    found = {name: getattr(config, name, None) for name in _NUMBERS}
    return {
        name: list(value) if isinstance(value, (tuple, list)) else value
        for name, value in found.items()
        if value is not None
    }


def _write(module: Any, found: LatentStatistics) -> None:
    numbers = _numbers(module)
    if not hasattr(module, "register_to_config") or scales_by_itself(module):
        return
    if "latents_mean" in numbers and "latents_std" in numbers:
        module.register_to_config(latents_mean=list(found.mean), latents_std=list(found.std))
    elif numbers.get("scaling_factor", 1.0) != 1.0:
        module.register_to_config(scaling_factor=round(found.scaling_factor, 5))
        if "shift_factor" in numbers:
            module.register_to_config(shift_factor=round(found.shift_factor, 5))
