"""How long and how fast a fine-tune learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffusers.optimization import SchedulerType

from equivae.errors import InputError, did_you_mean
from equivae.options import BATCH, NOT_NEGATIVE, Options, above, at_least, option, quoted, within

__all__ = ["PACKAGES", "OptimisationOptions", "OptimizerName", "Precision"]

Precision = Literal["no", "fp16", "bf16"]
OptimizerName = Literal["adamw", "adamw8bit", "prodigy", "lion", "muon"]

PACKAGES = {
    "adamw8bit": ("bitsandbytes", "8bit"),
    "prodigy": ("prodigyopt", "optimizers"),
    "lion": ("lion_pytorch", "optimizers"),
}
"""Where an optimiser comes from: the module, and the extra that installs it."""

_NEEDS_RULES = SchedulerType.PIECEWISE_CONSTANT.value
_POLYNOMIAL_END = 1e-7  # the rate at which diffusers lets its polynomial schedule end


def _check_scheduler(name: str, value: str) -> None:
    known = [kind.value for kind in SchedulerType if kind.value != _NEEDS_RULES]
    if value == _NEEDS_RULES:
        raise InputError(
            f"{name}={value!r} needs step rules, which no option carries; pass one of "
            f"{', '.join(known)}."
        )
    if value not in known:
        raise InputError(f"{name}={quoted(value)} is unknown.{did_you_mean(value[:60], known)}")


@dataclass(frozen=True)
class OptimisationOptions(Options):
    """Steps, batches, learning rates, AdamW, precision and the moving average."""

    bottleneck_steps: int = option(
        500,
        "Steps, at most, that train the layers at latent resolution alone, before all layers learn; for "
        "train='all'. 0 leaves them out.",
        range=at_least(0),
    )
    bottleneck_share: float = option(
        1.0,
        "What those steps may cost at most, as a share of the cost of all steps after them, both counted "
        "in operations.",
        range=above(0),
    )
    bottleneck_tolerance: float = option(
        0.01,
        "Those steps end early once their loss falls by less than this part in 100 steps; 0 takes all of "
        "them.",
        range=within(0, 1),
    )
    bottleneck_learning_rate: float = option(
        1e-3, "Peak learning rate of those steps.", range=above(0)
    )
    train_batch_size: int = option(4, "Images per step and device.", range=BATCH)
    num_train_epochs: int = option(
        5,
        "Passes over the images, unless max_train_steps is given.",
        range=at_least(1),
        free=True,  # max_train_steps says it
    )
    max_train_steps: int | None = option(
        None, "Optimiser steps; overrides num_train_epochs.", range=at_least(1)
    )
    gradient_accumulation_steps: int = option(1, "Batches per optimiser step.", range=BATCH)
    gradient_checkpointing: bool = option(False, "Recompute activations to save memory.", free=True)
    learning_rate: float = option(3e-4, "Peak learning rate.", range=above(0))
    operator_learning_rate: float | None = option(
        None,
        "Peak learning rate of trained latent ops; that of the VAE unless given.",
        range=above(0),
    )
    lr_scheduler: str = option(
        "cosine", "A schedule of diffusers.optimization.", check=_check_scheduler
    )
    lr_warmup_steps: int = option(
        20,
        "Steps of linear warm-up; unless given, at most a quarter of all.",
        range=at_least(0),
    )
    optimizer: OptimizerName = option(
        "adamw",
        "adamw, adamw8bit (needs a GPU), prodigy, which finds its own step size and wants a learning_rate "
        "of about 1, lion, which wants about a third of AdamW's, or muon, which wants AdamW's.",
    )
    adam_beta1: float = option(
        0.9,
        "AdamW's beta1, or that of the optimizer in its place.",
        range=within(0, 1, open_high=True),
    )
    adam_beta2: float = option(0.99, "AdamW's beta2, likewise.", range=within(0, 1, open_high=True))
    adam_weight_decay: float = option(0.0, "Weight decay.", range=NOT_NEGATIVE)
    decay_norms_and_biases: bool = option(
        False, "Let the weight decay take hold of norms and biases too."
    )
    adam_epsilon: float = option(1e-8, "AdamW's epsilon; lion has none.", range=above(0))
    max_grad_norm: float = option(
        1.0, "Clip gradients to this norm; 0 does not clip.", range=NOT_NEGATIVE
    )
    mixed_precision: Precision = option("no", "no, fp16 or bf16.")
    channels_last: bool | None = option(
        None,
        "Keep the weights in channels-last order while they learn; by default where mixed_precision is fp16 "
        "or bf16, which it makes faster, and no layers are frozen.",
    )
    compile: bool = option(
        False,
        "Run the VAE's parts through torch.compile, which takes a minute or more at the first step and needs "
        "a compiler.",
        free=True,
    )
    use_ema: bool = option(False, "Keep an exponential moving average of the weights, and save it.")
    ema_decay: float = option(0.999, "Decay of that average.", range=within(0, 1))

    def check(self) -> None:
        if self.optimizer == "prodigy" and self.operator_learning_rate is not None:
            raise InputError(
                "optimizer='prodigy' finds one step size for all weights, so operator_learning_rate does not "
                "go with it; leave one of them out."
            )
        if self.lr_scheduler == SchedulerType.POLYNOMIAL.value:
            for name in ("learning_rate", "operator_learning_rate"):
                rate = getattr(self, name)
                if rate is not None and rate <= _POLYNOMIAL_END:
                    raise InputError(
                        f"lr_scheduler='polynomial' ends at {_POLYNOMIAL_END:g}, so {name} must be above "
                        f"that, got {rate:g}."
                    )
