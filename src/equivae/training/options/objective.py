"""What a fine-tune asks of a VAE, and which of its weights learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equivae.autoencoder.padding import PaddingMode
from equivae.errors import InputError
from equivae.losses.catalogue import read_terms
from equivae.losses.equivariance import Schedule
from equivae.losses.reconstruction import resolve_reconstruction
from equivae.operators.modules import check_kernel_size
from equivae.options import NOT_NEGATIVE, at_least, option, within
from equivae.training.options.learning import LearningOptions

__all__ = ["ObjectiveOptions"]


def _check_reconstruction(name: str, value: Any) -> None:
    resolve_reconstruction(value)


def _check_terms(name: str, value: Any) -> None:
    read_terms(value)


def _check_kernel_size(name: str, value: int) -> None:
    check_kernel_size(value)


@dataclass(frozen=True)
class ObjectiveOptions(LearningOptions):
    """The terms of the loss, and the latent ops under it."""

    fit_operator: bool = option(
        False, "Fit a latent op for every transform on the training images before training."
    )
    kernel_size: int = option(
        5, "Side of these latent ops: an odd number of latent cells.", check=_check_kernel_size
    )
    train_operator: bool = option(
        False, "Train fitted latent ops along with the VAE; needs train='decoder'."
    )
    distillation: float = option(
        0.0,
        "Share of the untouched decoder's image in what decodes are compared with, a guard against "
        "forgetting where training images differ from those the VAE is for; needs train='decoder'.",
        range=within(0, 1),
    )
    weight: float = option(1.0, "Weight of the equivariance term.", range=NOT_NEGATIVE)
    reconstruction: Any = option(
        "mse",
        "Reconstruction loss: mse or l1 (a callable from Python), or none where terms say it all.",
        check=_check_reconstruction,
    )
    terms: Any = option(
        None,
        "Further terms of the loss by name and weight: kl=1e-6, adversarial(weight=0.5,start_step=1000); "
        "from Python a mapping. Comma-separated, or given several times.",
        check=_check_terms,
        repeated=True,
    )
    reconstruction_weight: float = option(
        1.0, "Weight of the reconstruction term.", range=NOT_NEGATIVE
    )
    schedule: Schedule = option(
        "sampled",
        "dual decodes every transform beside the identity, sampled one of them per image, batch one for the "
        "whole batch.",
    )
    probability: float = option(
        0.5,
        "Share of transformed images, or batches, under the schedules that draw.",
        range=within(0, 1),
    )
    image_scale_probability: float = option(
        0.0,
        "EQ-VAE's second branch, under the batch schedule: how often a batch that no transform was drawn for "
        "is made smaller before it is encoded, and plainly reconstructed.",
        range=within(0, 1),
    )
    latent_masking: bool = option(
        False,
        "Hide cells of the latents from the decoder behind a learned token, as SSVAE does: of every image "
        "0, 25, 50 or 75 % with probability 0.7, 0.1, 0.1, 0.1.",
    )
    encoder_weight: float = option(
        0.0, "Weight of the encoder-side equivariance term.", range=NOT_NEGATIVE
    )
    sample_posterior: bool = option(False, "Encode to draws from the posterior, not to its mode.")
    chunk_size: int | None = option(
        None, "Images per decoder call at most, to save memory.", range=at_least(1), free=True
    )
    padding_mode: PaddingMode | None = option(
        None,
        "zeros, reflect, replicate or circular for every convolution, or reflect-convs; by default the "
        "VAE's own.",
    )

    def check(self) -> None:
        object.__setattr__(self, "terms", read_terms(self.terms))
        self._check_terms_together()
        for name in ("fit_operator", "train_operator"):
            if getattr(self, name) and self.train != "decoder":
                raise InputError(
                    f"{name}=True needs train='decoder', got train={self.train!r}: a latent op is "
                    "fitted to a fixed encoder."
                )
        if self.distillation and (
            self.train != "decoder" or self.sample_posterior or self.encoder_weight
        ):
            raise InputError(
                "distillation compares with what the untouched decoder makes of the same latents; it needs "
                "train='decoder', and neither sample_posterior nor encoder_weight."
            )
        if self.encoder_weight and self.train == "decoder":
            raise InputError(
                "encoder_weight has no effect with train='decoder', whose encoder does not learn; "
                "leave it out."
            )
        if not (self.weight or self.reconstruction_weight or self.encoder_weight):
            raise InputError(
                "weight, reconstruction_weight and encoder_weight are all 0, so there is nothing to learn; "
                "give one of them a weight."
            )
        self._check_probability()
        if self.padding_mode is not None and self.fit_operator:
            raise InputError(
                "fit_operator=True fits the VAE as it is, and padding_mode changes it: call "
                "set_padding_mode on the VAE first, and leave padding_mode out."
            )

    def _check_terms_together(self) -> None:
        """The reconstruction loss is one thing, and a term beside it another."""
        if isinstance(self.reconstruction, str) and self.reconstruction in self.terms:
            raise InputError(
                f"terms has {self.reconstruction!r}, and reconstruction={self.reconstruction!r} gives it "
                "already; leave it out of terms, or set reconstruction='none' to weigh it there."
            )
        weighed = any(one["weight"] for one in self.terms.values())
        if self.reconstruction == "none" and not (weighed or self.encoder_weight):
            raise InputError(
                "reconstruction='none' leaves nothing to learn without terms; give terms a weight, such as "
                "terms={'mse': 0.25}."
            )

    def _check_probability(self) -> None:
        """The schedules that draw draw what has a weight."""
        if self.image_scale_probability and (self.schedule != "batch" or self.distillation):
            raise InputError(
                "image_scale_probability belongs to schedule='batch', and does not go with distillation; "
                "leave one of them out."
            )
        if self.schedule == "dual":
            return
        if self.probability == 0 and self.weight:
            raise InputError(
                "probability=0 never draws a transform, whose term has a weight; raise it, or set weight=0."
            )
        if self.probability == 1 and self.reconstruction_weight:
            raise InputError(
                "probability=1 never draws the plain reconstruction, whose term has a weight; lower it, "
                "or set reconstruction_weight=0."
            )
