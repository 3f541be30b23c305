"""Options of a fine-tune, named as in diffusers' training scripts, and the recipes that set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from diffusers.optimization import SchedulerType
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from equivae.autoencoder.padding import PaddingMode, check_padding_mode
from equivae.errors import InputError, did_you_mean
from equivae.losses.equivariance import Schedule
from equivae.losses.reconstruction import resolve_reconstruction
from equivae.operators.modules import check_kernel_size

__all__ = ["RECIPES", "FinetuneConfig", "Recipe", "make_config"]

Train = Literal["all", "decoder", "encoder"]
Precision = Literal["no", "fp16", "bf16"]


def _option(default: Any, help: str, shown: bool = True) -> Any:
    return field(default=default, metadata={"help": help}, repr=shown)


@dataclass(frozen=True)
class FinetuneConfig:
    """Every option of `finetune`, with the defaults of the recipe `"equivae"`."""

    resolution: int | None = _option(None, "Resize and centre-crop images to this side in pixels.")
    crop_size: int | None = _option(
        None, "Train on random crops of this side, in pixels, of the images at that resolution."
    )
    train: Train = _option("all", "Which weights learn: all, decoder or encoder.")
    fit_operator: bool = _option(
        False, "Fit a latent op for every transform on the training images before training."
    )
    kernel_size: int = _option(5, "Of these latent ops: odd number of latent cells.")
    train_operator: bool = _option(
        False, "Train fitted latent ops along with the VAE; needs train='decoder'."
    )
    operator_learning_rate: float | None = _option(
        None, "Peak learning rate of trained latent ops; that of the VAE unless given."
    )
    distillation: float = _option(
        0.0,
        "Share of the untouched decoder's image in what decodes are compared with, a guard against "
        "forgetting where training images differ from those the VAE is for; needs train='decoder'.",
    )
    bottleneck_steps: int = _option(
        500,
        "Steps that train the layers at latent resolution alone, before all layers learn; for "
        "train='all', at most two for each of the other steps. 0 leaves them out.",
    )
    bottleneck_learning_rate: float = _option(1e-3, "Peak learning rate of those steps.")
    weight: float = _option(1.0, "Weight of the equivariance term.")
    reconstruction: Any = _option("mse", "Reconstruction loss: mse or l1 (a callable from Python).")
    reconstruction_weight: float = _option(1.0, "Weight of the reconstruction term.")
    schedule: Schedule = _option(
        "sampled",
        "dual decodes every transform beside the identity, sampled one of them per image.",
    )
    probability: float = _option(0.5, "Share of transformed images under the sampled schedule.")
    encoder_weight: float = _option(0.0, "Weight of the encoder-side equivariance term.")
    sample_posterior: bool = _option(False, "Encode to draws from the posterior, not to its mode.")
    chunk_size: int | None = _option(None, "Images per decoder call at most, to save memory.")
    train_batch_size: int = _option(4, "Images per step and device.")
    eval_batch_size: int = _option(4, "Images per call in evaluation.")
    num_train_epochs: int = _option(5, "Passes over the images, unless max_train_steps is given.")
    max_train_steps: int | None = _option(None, "Optimiser steps; overrides num_train_epochs.")
    gradient_accumulation_steps: int = _option(1, "Batches per optimiser step.")
    gradient_checkpointing: bool = _option(False, "Recompute activations to save memory.")
    learning_rate: float = _option(3e-4, "Peak learning rate.")
    lr_scheduler: str = _option("cosine", "A schedule of diffusers.optimization.")
    lr_warmup_steps: int = _option(20, "Steps of linear warm-up.")
    adam_beta1: float = _option(0.9, "AdamW's beta1.")
    adam_beta2: float = _option(0.99, "AdamW's beta2.")
    adam_weight_decay: float = _option(0.0, "AdamW's weight decay.")
    adam_epsilon: float = _option(1e-8, "AdamW's epsilon.")
    max_grad_norm: float = _option(1.0, "Clip gradients to this norm; 0 does not clip.")
    mixed_precision: Precision = _option("no", "no, fp16 or bf16.")
    use_ema: bool = _option(
        False, "Keep an exponential moving average of the weights, and save it."
    )
    ema_decay: float = _option(0.999, "Decay of that average.")
    validation_split: float = _option(0.1, "Share of the images held out for validation.")
    validation_steps: int | None = _option(None, "Validate every so many steps; else every epoch.")
    max_eval_samples: int = _option(64, "Held-out images measured before and after, at most.")
    sweep_samples: int = _option(
        0, "Held-out images on which the report sweeps angles and scales; takes time."
    )
    checkpointing_steps: int = _option(500, "Save the state of the run every so many steps.")
    checkpoints_total_limit: int | None = _option(2, "Keep so many of those at most.")
    resume_from_checkpoint: str | None = _option(None, "latest, or a checkpoint's folder.")
    dataloader_num_workers: int = _option(0, "Processes that read images.")
    latent_cache_mb: int = _option(512, "Cached latents above this size lie on disk.")
    report_to: str | None = _option(None, "A tracker of accelerate: tensorboard, wandb, ...")
    logging_steps: int = _option(10, "Record the loss every so many steps.")
    seed: int = _option(0, "Of the split, the order and every draw.")
    padding_mode: PaddingMode | None = _option(
        None, "zeros, reflect or replicate, for every convolution; by default the VAE's own."
    )
    update_scaling_factor: bool = _option(
        True, "Write the measured scaling and shift factor to the config if the latents changed."
    )
    license: str | None = _option(None, "Of the saved VAE, for its card, as the hub names it.")
    push_to_hub: bool = _option(False, "Upload VAE, card, report and figures when done.")
    hub_model_id: str | None = _option(None, "The repository; by default the output folder's name.")
    hub_private: bool = _option(False, "Make that repository a private one.")
    hub_token: str | None = _option(
        None, "To upload with; by default the one you logged in with.", False
    )

    def __post_init__(self) -> None:
        for name, kind in (
            ("train", Train),
            ("schedule", Schedule),
            ("mixed_precision", Precision),
        ):
            if getattr(self, name) not in get_args(kind):
                known = get_args(kind)
                raise InputError(
                    f"{name}={getattr(self, name)!r} is unknown."
                    f"{did_you_mean(str(getattr(self, name)), known)}"
                )
        schedulers = [kind.value for kind in SchedulerType]
        if self.lr_scheduler not in schedulers:
            raise InputError(
                f"lr_scheduler={self.lr_scheduler!r} is unknown."
                f"{did_you_mean(str(self.lr_scheduler), schedulers)}"
            )
        check_kernel_size(self.kernel_size)
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
        resolve_reconstruction(self.reconstruction)
        if self.padding_mode is not None:
            check_padding_mode(self.padding_mode)
            if self.fit_operator:
                raise InputError(
                    "fit_operator=True fits the VAE as it is, and padding_mode changes it: call "
                    "set_padding_mode on the VAE first, and leave padding_mode out."
                )
        self._check_hub()
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}.")
        for name in (
            "learning_rate",
            "bottleneck_learning_rate",
            "operator_learning_rate",
            "adam_epsilon",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be above 0, got {value}.")
        for name in _NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}.")
        for name in ("adam_beta1", "adam_beta2", "validation_split"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must lie in [0, 1), got {getattr(self, name)}.")
        for name in ("probability", "ema_decay", "distillation"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in [0, 1], got {getattr(self, name)}.")

    def _check_hub(self) -> None:
        if self.hub_model_id is None:
            return
        if not self.push_to_hub:
            raise InputError(
                f"hub_model_id={self.hub_model_id!r} does nothing without push_to_hub; pass both or neither."
            )
        try:
            validate_repo_id(self.hub_model_id)
        except HFValidationError as error:
            raise InputError(
                f"hub_model_id={self.hub_model_id!r} is no name of a repository; pass one such as "
                "'name' or 'owner/name'."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """The options by name, without the token; a callable reconstruction loss by its own name."""
        content = asdict(self)
        del content["hub_token"]
        if callable(self.reconstruction):
            content["reconstruction"] = getattr(
                self.reconstruction, "__name__", type(self.reconstruction).__name__
            )
        return content


_POSITIVE = [
    "resolution",
    "crop_size",
    "chunk_size",
    "train_batch_size",
    "eval_batch_size",
    "num_train_epochs",
    "max_train_steps",
    "gradient_accumulation_steps",
    "validation_steps",
    "max_eval_samples",
    "checkpointing_steps",
    "checkpoints_total_limit",
    "logging_steps",
]
_NOT_NEGATIVE = [
    "weight",
    "reconstruction_weight",
    "encoder_weight",
    "max_grad_norm",
    "adam_weight_decay",
    "lr_warmup_steps",
    "bottleneck_steps",
    "dataloader_num_workers",
    "latent_cache_mb",
]


@dataclass(frozen=True)
class Recipe:
    """A named set of options, what it is for, and where it comes from."""

    name: str
    summary: str
    source: str
    options: Mapping[str, Any]


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "equivae",
            "The default for the plain grid move: the layers at latent resolution first, then all weights, "
            "one decode per image.",
            "EQ-VAE's draw (arXiv 2502.09509); benchmarks/sotemix_rot180.py",
            {},
        ),
        Recipe(
            "published",
            "The 180° experiment as published: two decodes per image, all weights, 5 epochs.",
            "the SoteMix experiment",
            {
                "schedule": "dual",
                "train": "all",
                "bottleneck_steps": 0,
                "train_batch_size": 3,
                "num_train_epochs": 5,
                "learning_rate": 5e-5,
                "lr_scheduler": "constant",
                "lr_warmup_steps": 0,
                "adam_beta2": 0.999,
                "adam_weight_decay": 0.01,
                "max_grad_norm": 0.0,
                "use_ema": False,
                "resolution": 256,
            },
        ),
        Recipe(
            "decoder",
            "The encoder frozen and its latents cached: existing diffusion models stay valid.",
            "diffusers' train_autoencoderkl, HakuLatent",
            {"train": "decoder"},
        ),
        Recipe(
            "fitted",
            "Latent ops fitted first, then decoder and latent ops trained; the encoder stays as it is.",
            "benchmarks/sotemix_rot180.py",
            {
                "train": "decoder",
                "fit_operator": True,
                "train_operator": True,
                "weight": 4.0,
                "probability": 0.8,
                "learning_rate": 2e-4,
                "use_ema": True,
                "ema_decay": 0.98,
            },
        ),
        Recipe(
            "symmetrized",
            "For a symmetrized VAE: decoder and context learn, which removes the seam; the encoder stays.",
            "benchmarks/sotemix_rot180.py",
            {"train": "decoder", "learning_rate": 2e-4, "use_ema": True, "ema_decay": 0.98},
        ),
    )
}


def make_config(recipe: str, options: Mapping[str, Any]) -> FinetuneConfig:
    """The options of a recipe, with those given on top. `InputError` for an unknown name or value."""
    if recipe not in RECIPES:
        raise InputError(f"unknown recipe {recipe!r}.{did_you_mean(recipe, RECIPES)}")
    known = [f.name for f in fields(FinetuneConfig)]
    for name in options:
        if name not in known:
            raise InputError(f"unknown option {name!r}.{did_you_mean(name, known)}")
    return FinetuneConfig(**{**RECIPES[recipe].options, **options})
