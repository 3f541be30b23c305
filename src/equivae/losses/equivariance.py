"""The objective: reconstruction plus equivariance, around any autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from equivae.autoencoder import Autoencoder, check_transforms, layout_of
from equivae.autoencoder.at_once import decode_in_calls, encode_in_calls
from equivae.autoencoder.modes import differentiable
from equivae.autoencoder.posteriors import drawn_from
from equivae.errors import InputError, did_you_mean
from equivae.losses.decoding import (
    Decoding,
    batch_parts,
    draw_for_batch,
    dual_parts,
    sampled_parts,
)
from equivae.losses.encoder_side import EncoderTerm
from equivae.losses.reconstruction import (
    RECONSTRUCTION_LOSSES,
    ReconstructionLike,
    nothing,
    resolve_reconstruction,
)
from equivae.losses.terms import ImageTerm, Term
from equivae.transforms import Transform, get_transform, resolve_transforms
from equivae.transforms.groups import TransformsLike

__all__ = ["EquivarianceLoss", "LossOutput", "Schedule"]

Schedule = Literal["dual", "sampled", "batch"]


@dataclass
class LossOutput:
    """What a loss call gives.

    Attributes:
        loss: the scalar to differentiate.
        terms: every part of it before its weight, detached scalars: `"reconstruction"`,
            `"equivariance/rot180"`, `"encoder/rot180"`. Under the sampled schedule a transform that no
            sample of the batch drew has no term, nor has a random one whose draw left nothing to compare.
    """

    loss: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class EquivarianceLoss:
    r"""Reconstruction loss plus equivariance loss.

    With `R` the reconstruction loss, `z = E(x)` and `n` transforms,

    .. math:: L = w_r\, R(D(z), x) + \frac{w}{n} \sum_t R(D(\rho_t z), T_t x)

    .. math:: {} + \frac{w_e}{n} \sum_t \frac{\lVert E(T_t x) - \rho_t E(x) \rVert^2}{P_0}

    With one transform, `w = w_r = 1` and `w_e = 0` this is the published 180° objective.

    Three schedules have this expectation. `"dual"` decodes every transform beside the identity: `n + 1`
    decodes per image. `"sampled"` decodes each image once, under a transform with the given
    probability `p` (each as likely as the others) and else under the identity; the samples are
    weighted by `w / p` and `w_r / (1 - p)`. (EQ-VAE, arXiv 2502.09509, eq. 6, draws so with p = 0.5.)
    The draw is systematic: of a batch of 8 with p = 0.5, four samples are transformed. `"batch"` draws once
    for the whole batch, as EQ-VAE's and HakuLatent's code does, with the same expectation.

    Args:
        transforms: names, groups such as `"d4"`, transforms, or a list of those. An empty list leaves
            the plain reconstruction loss. Random transforms are drawn anew at every call.
        weight: `w`.
        reconstruction: `R`: `"mse"`, `"l1"`, `"none"` where the terms of an `Objective` say it all, or any
            callable `(decoded, target) -> loss` on images `(B, C, H, W)` in [-1, 1] (or videos, or audio)
            that averages over pixels.
        reconstruction_weight: `w_r`.
        schedule: `"dual"`, `"sampled"` or `"batch"`.
        probability: `p`, for the schedules that draw.
        image_scale_probability: under the batch schedule, how often a batch that no transform was drawn for
            is made smaller before it is encoded, by EQ-VAE's factors, and plainly reconstructed at that size.
        encoder_weight: `w_e`, the encoder-side term; see `equivae.losses.EncoderTerm`.
        encoder_reference: `P_0`, the power of the untouched VAE's latents; the first call takes that of its
            own latents where it is not given.
        sample_posterior: encode to a draw from the posterior instead of its mode.
        chunk_size: images per decoder call at most, each call computed again in the backward pass to save
            memory; `None` computes nothing again, and takes as many images per call as the device runs
            fastest: all of them on a GPU, fewer on a CPU.

    Raises `InputError` for an unknown name or an option outside its range.

    ```python
    import torch

    import equivae

    vae = equivae.zoo.load()
    loss_fn = equivae.EquivarianceLoss(["rot180", "hflip"], weight=1.0)
    out = loss_fn(vae, torch.rand(2, 3, 64, 64) * 2 - 1)
    out.loss.backward()
    assert list(out.terms) == ["reconstruction", "equivariance/rot180", "equivariance/hflip"]
    ```
    """

    def __init__(
        self,
        transforms: TransformsLike,
        *,
        weight: float = 1.0,
        reconstruction: ReconstructionLike = "mse",
        reconstruction_weight: float = 1.0,
        schedule: Schedule = "dual",
        probability: float = 0.5,
        image_scale_probability: float = 0.0,
        encoder_weight: float = 0.0,
        encoder_reference: float | None = None,
        sample_posterior: bool = False,
        chunk_size: int | None = None,
    ) -> None:
        if schedule not in get_args(Schedule):
            known = get_args(Schedule)
            raise InputError(f"unknown schedule {schedule!r}.{did_you_mean(str(schedule), known)}")
        for name, value in (
            ("probability", probability),
            ("image_scale_probability", image_scale_probability),
        ):
            if not 0.0 <= value <= 1.0:
                raise InputError(f"{name} must lie in [0, 1], got {value}.")
        for name, value in (
            ("weight", weight),
            ("reconstruction_weight", reconstruction_weight),
            ("encoder_weight", encoder_weight),
        ):
            if not value >= 0:
                raise InputError(f"{name} must not be negative, got {value}.")
        if chunk_size is not None and chunk_size < 1:
            raise InputError(f"chunk_size must be at least 1, got {chunk_size}.")
        self.transforms = resolve_transforms(transforms)
        self.weight = weight
        self.reconstruction = resolve_reconstruction(reconstruction)
        self.reconstruction_weight = reconstruction_weight
        self.schedule = schedule
        self.probability = probability
        self.image_scale_probability = image_scale_probability
        self.encoder_weight = encoder_weight
        self.sample_posterior = sample_posterior
        self.chunk_size = chunk_size
        self._image_term = ImageTerm(self.reconstruction)
        self._encoder_term = EncoderTerm(encoder_reference)

    def __call__(
        self,
        vae: nn.Module | Autoencoder,
        images: Tensor,
        *,
        latents: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> LossOutput:
        """The loss of a batch.

        Args:
            vae: the autoencoder, as a module or as an `Autoencoder`.
            images: `(B, C, H, W)`, videos `(B, C, T, H, W)` or audio `(B, C, T)`, in [-1, 1].
            latents: `E(images)` when it is known already, as with a frozen encoder.
            generator: a CPU generator for the draws of the sampled schedule and of the posterior.
        """
        return self.sum_up(self.decode(vae, images, latents=latents, generator=generator))

    def decode(
        self,
        vae: nn.Module | Autoencoder,
        images: Tensor,
        *,
        latents: Tensor | None = None,
        generator: torch.Generator | None = None,
        step: int = 0,
        posterior: bool = False,
        hide: Callable[[Tensor, torch.Generator | None], Tensor] | None = None,
    ) -> Decoding:
        """What the terms of a batch look at; arguments as in a call.

        Args:
            step: of the run, for transforms that take turns.
            posterior: whether a term asks for mean and variance.
            hide: what the decoder gets of the latents; see `equivae.losses.masking`.
        """
        autoencoder = vae if isinstance(vae, Autoencoder) else Autoencoder(vae)
        sampled = latents is None and self.sample_posterior
        images = differentiable(images)
        draws = self.schedule == "batch" and bool(self.transforms and self.weight)
        probability = self.probability if self.reconstruction_weight else 1.0
        chosen: int | None = None
        if draws:
            chosen, smaller = draw_for_batch(
                len(self.transforms),
                generator,
                probability=probability,
                image_scale=self.image_scale_probability,
            )
            if smaller:
                images, latents = _made_smaller(images, autoencoder, generator), None
        gaussian = autoencoder.posterior(images) if posterior else None
        if latents is None and gaussian is not None:
            latents = drawn_from(gaussian, generator) if sampled else gaussian[0]
        elif latents is None:
            latents = self._encode(autoencoder, images, generator)
        turned = [t.at_step(step) for t in self.transforms]
        transforms = _placed(turned, autoencoder, images, latents)
        shown = transforms if self.weight else []  # what has no weight is not decoded
        weights = {"weight": self.weight, "reconstruction_weight": self.reconstruction_weight}
        if self.schedule == "sampled" and shown:
            parts = sampled_parts(shown, images, generator, probability=probability, **weights)
        elif draws:
            parts = batch_parts(
                shown, images.shape[0], chosen, generator, probability=probability, **weights
            )
        else:
            parts = dual_parts(shown, images.shape[0], generator, **weights)
        decoding = Decoding(
            autoencoder,
            images,
            latents,
            sampled,
            self.transforms,
            transforms,
            generator,
            posterior=gaussian,
            hide=hide,
        )
        decoding.decode(parts, self._decode_with(autoencoder, images[0, 0].numel()))
        return decoding

    def _encode(
        self, autoencoder: Autoencoder, images: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        if self.sample_posterior:  # one draw for the batch, whatever the size of a call
            return autoencoder.encode(images, sample=True, generator=generator)
        return encode_in_calls(autoencoder, images)

    def _decode_with(self, autoencoder: Autoencoder, pixels: int) -> Callable[[Tensor], Tensor]:
        """Chunk by chunk, each computed again in the backward pass, so that one at a time is held.

        Without a size in calls as large as the device runs fastest, and nothing is computed again.
        """
        size = self.chunk_size
        if size is None:
            return partial(decode_in_calls, autoencoder, pixels=pixels)

        def decode(latents: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return autoencoder.decode(latents, chunk_size=size)
            return torch.cat(
                [
                    checkpoint(autoencoder.decode, part, use_reentrant=False)
                    for part in torch.split(latents, size)
                ]
            )

        return decode

    def sum_up(self, decoding: Decoding) -> LossOutput:
        """The loss of what was decoded."""
        terms: dict[str, Tensor] = {}
        loss = decoding.latents.new_zeros((), dtype=torch.float32)
        weighted: list[tuple[float, Term]] = [(1.0, self._image_term)]
        if self.reconstruction is nothing:  # every weight has its gradient, of nothing
            weighted = []
            loss = loss + sum(one.decoded.float().mean() for one in decoding.parts) * 0.0
        if self.encoder_weight:
            weighted.append((self.encoder_weight, self._encoder_term))
        for weight, term in weighted:
            for one in term(decoding):
                if one.name is not None:
                    terms[one.name] = one.value.detach()
                loss = loss + weight * one.weight * one.value
        return LossOutput(loss, terms)

    @property
    def name(self) -> str:
        """Of the reconstruction loss: `"mse"`, `"l1"`, `"none"`, or what a callable is called."""
        for name, known in RECONSTRUCTION_LOSSES.items():
            if self.reconstruction is known:
                return name
        return str(getattr(self.reconstruction, "__name__", type(self.reconstruction).__name__))

    def with_encoder_reference(self, power: float) -> EquivarianceLoss:
        """The same loss, its encoder-side term divided by this power of the untouched VAE's latents."""
        self._encoder_term = EncoderTerm(power)
        return self


def _made_smaller(
    images: Tensor, autoencoder: Autoencoder, generator: torch.Generator | None
) -> Tensor:
    """Images by one of EQ-VAE's factors smaller, unfiltered as in its code, to whole cells."""
    drawn = get_transform("random_scale", antialias=False).draw(images.shape[0], generator)
    return autoencoder.place(drawn).pixel(images)


def _placed(
    transforms: Sequence[Transform], autoencoder: Autoencoder, images: Tensor, latents: Tensor
) -> list[Transform]:
    """The transforms for this autoencoder. The factor of images needs no probe: the shapes tell it."""
    if images.ndim == 4:
        factor = max(1, images.shape[-1] // latents.shape[-1])
        return [t.at_factor(factor) for t in transforms]
    check_transforms(transforms, layout_of(images), autoencoder, images.shape[0])
    return [autoencoder.place(t) for t in transforms]
