"""The optimisers by name, and which weights they let decay."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from equivae.errors import InputError
from equivae.processes import process_state
from equivae.training.muon import Muon
from equivae.training.options import OptimisationOptions
from equivae.training.options.optimisation import PACKAGES

if TYPE_CHECKING:
    from equivae.training.student import Student

__all__ = ["check_optimizer", "make_optimizer", "optimizer_of"]


def check_optimizer(options: OptimisationOptions) -> None:
    """`InputError` for an optimiser that this machine does not run."""
    name = options.optimizer
    if name == "adamw8bit" and process_state().device.type != "cuda":
        raise InputError("optimizer='adamw8bit' needs a GPU; use 'adamw' on the CPU.")
    if name in PACKAGES and importlib.util.find_spec(PACKAGES[name][0]) is None:
        module, extra = PACKAGES[name]
        raise InputError(
            f"optimizer={name!r} needs the package {module}, which is not here; "
            f"`pip install equivae[{extra}]`."
        )


def optimizer_of(options: OptimisationOptions, student: Student) -> Any:
    """The optimiser of a student: its VAE and its terms, and latent ops at a rate of their own."""
    groups: list[tuple[Sequence[nn.Parameter], float | None]] = [
        ([*student.parameters, *student.term_parameters], None)
    ]
    if student.operators:
        rate = options.operator_learning_rate or options.learning_rate
        groups.append((student.operator_parameters, rate))
    return make_optimizer(options, groups)


def make_optimizer(
    options: OptimisationOptions, groups: Sequence[tuple[Sequence[nn.Parameter], float | None]]
) -> Any:
    """The optimiser that the options name.

    Args:
        options: its name, learning rate, betas, epsilon and weight decay, and what decays.
        groups: weights, each with a learning rate of their own or `None`.
    """
    given: list[dict[str, Any]] = []
    for weights, rate in groups:
        for members, decay in _by_decay(weights, options):
            group: dict[str, Any] = {"params": members}
            group |= {} if rate is None else {"lr": rate}
            given.append(group | ({} if decay is None else {"weight_decay": decay}))
    rules: dict[str, Any] = {
        "lr": options.learning_rate,
        "betas": (options.adam_beta1, options.adam_beta2),
        "weight_decay": options.adam_weight_decay,
    }
    if options.optimizer == "adamw":
        return torch.optim.AdamW(given, eps=options.adam_epsilon, fused=True, **rules)
    if options.optimizer == "muon":
        return Muon(given, eps=options.adam_epsilon, **rules)
    module: Any = importlib.import_module(PACKAGES[options.optimizer][0])
    if options.optimizer == "lion":
        return module.Lion(given, **rules)
    if options.optimizer == "prodigy":
        return module.Prodigy(given, eps=options.adam_epsilon, **rules)
    return module.optim.AdamW8bit(given, eps=options.adam_epsilon, **rules)


def _by_decay(
    weights: Sequence[nn.Parameter], options: OptimisationOptions
) -> list[tuple[list[nn.Parameter], float | None]]:
    """Norms and biases, which have one axis, apart from the others, where weights decay at all."""
    if not options.adam_weight_decay or options.decay_norms_and_biases:
        return [(list(weights), None)]
    parts = [
        ([p for p in weights if p.ndim > 1], None),
        ([p for p in weights if p.ndim <= 1], 0.0),
    ]
    return [part for part in parts if part[0]]
