"""The further terms of a run's loss: planned, followed through the steps, their rivals' optimisers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers.optimization import get_scheduler

from equivae.autoencoder import Autoencoder
from equivae.data.sources import ImageDataset
from equivae.files.fingerprint import fingerprint_of
from equivae.losses import AdversarialLoss, Objective, Term, TermContext, make_terms
from equivae.training.config import FinetuneConfig
from equivae.training.state import RunState
from equivae.training.trainer import Hook, Player
from equivae.transforms import Transform

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Following", "fingerprints_of_terms", "plan_terms", "rivals_of"]


def plan_terms(
    config: FinetuneConfig,
    vae: Autoencoder,
    images: ImageDataset,
    transforms: Sequence[Transform],
    max_steps: int,
) -> list[tuple[float, Term]]:
    """The terms that the options ask for; `InputError` for those that do not suit the run."""
    if not config.terms:
        return []
    example = images[0][None]
    if config.crop_size:
        example = example[..., : config.crop_size, : config.crop_size]
    context = TermContext(
        vae,
        config.half,
        example,
        min(config.train_batch_size, len(images)),
        sizes=_sizes(vae, example, transforms if config.weight else []),
        mixed_precision=config.mixed_precision,
        max_steps=max_steps,
    )
    terms = make_terms(config.terms, seed=config.seed, image_channels=example.shape[1])
    for _, term in terms:
        term.check_run(context)
    return terms


def _sizes(
    vae: Autoencoder, example: torch.Tensor, transforms: Sequence[Transform]
) -> list[tuple[int, ...]]:
    """What is decoded under every transform that is not drawn."""
    sizes = []
    for transform in transforms:
        placed = vae.place(transform)
        if placed.draw(1, torch.Generator().manual_seed(0)) is placed:
            sizes.append(tuple(placed.pixel(example).shape[-2:]))
    return sizes


def fingerprints_of_terms(terms: Sequence[tuple[float, Term]]) -> list[str]:
    """Of the networks that no checkpoint holds."""
    return [fingerprint_of(module) for _, term in terms for module in term.fixed_modules()]


def rivals_of(
    terms: Sequence[tuple[float, Term]], accelerator: Accelerator, max_steps: int
) -> list[Player]:
    """A player for every discriminator, with its own Adam and schedule, both saved with the run."""
    return [
        _rival(term, accelerator, max_steps)
        for _, term in terms
        if isinstance(term, AdversarialLoss)
    ]


def _rival(term: AdversarialLoss, accelerator: Accelerator, max_steps: int) -> Player:
    critic: Any = term.critic.requires_grad_(True)
    parameters = list(critic.parameters())
    adam = torch.optim.Adam(parameters, lr=term.learning_rate, betas=term.betas, fused=True)
    critic, optimizer = accelerator.prepare(critic, adam)
    scheduler = get_scheduler(
        term.lr_scheduler,
        optimizer,
        num_warmup_steps=term.lr_warmup_steps,
        num_training_steps=max(1, max_steps - term.start_step),
    )
    scheduler = accelerator.prepare(scheduler)
    return Player(critic, parameters, optimizer, scheduler, plays=lambda: term.started)


class Following(Hook):
    """Tells an objective the step, and when the terms' shares of the gradient are recorded.

    Args:
        objective: of the run.
        every: steps between two records.
    """

    def __init__(self, objective: Objective, every: int) -> None:
        self.objective, self.every = objective, every

    def on_start(self, state: RunState) -> None:
        self._tell(state)

    def on_step(self, state: RunState) -> None:
        self._tell(state)

    def _tell(self, state: RunState) -> None:
        self.objective.at_step(state.step, weighs=(state.step + 1) % self.every == 0)
