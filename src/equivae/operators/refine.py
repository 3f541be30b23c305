"""Gradient steps after the closed form: on the error of the latents, or on that of what they decode to."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder, evaluating
from equivae.operators.modules import LatentOperator
from equivae.operators.options import NetworkOptions

__all__ = ["Loss", "refine"]

_WARM_UP, _DECAY, _CHECKS, _PATIENCE = 0.05, 0.98, 10, 6

Loss = Callable[[LatentOperator, Tensor, torch.Generator], Tensor]
"""Of an operator, on some rows of what it learns from, with what draws crops."""


def refine(
    operator: LatentOperator,
    loss: Loss,
    count: int,
    vae: Autoencoder,
    score: Callable[[LatentOperator], float],
    options: NetworkOptions,
    progress: bool = True,
) -> LatentOperator | None:
    """Train an operator, nothing else, and give back the best average of its weights.

    Adam with a warm-up and a cosine, an average of the weights that follows them, and ten looks at how
    that does on held-out images: the best is kept, and six without a better one end it, since short steps
    often win back what long ones lost. It ends too when its seconds are over, which the cosine knows; a run
    that they end is not repeated to the bit. `None` says that nothing was better than the start.

    Args:
        operator: where to start; it is trained itself.
        loss: of the operator on some rows.
        count: how many rows there are.
        vae: run in evaluation mode while this trains.
        score: the higher the better, on held-out images.
        options: steps, seconds, learning rate, batch and seed.
        progress: show a progress bar.
    """
    from tqdm.auto import tqdm

    operator = operator.to(vae.device).requires_grad_(True)
    parameters = list(operator.parameters())
    groups = operator.parameter_groups()
    optimizer = torch.optim.Adam([{"params": params} for params, _ in groups])
    watched = _Watched(operator, score)
    generator = torch.Generator().manual_seed(options.seed)
    clock = _Clock(options.max_train_steps, options.max_seconds)
    with evaluating(vae.module), vae.full_precision():
        for step in tqdm(
            range(options.max_train_steps), desc="refine", disable=not progress, leave=False
        ):
            rate = options.learning_rate * _rate(clock.share(step))
            for group, (_, relative) in zip(optimizer.param_groups, groups, strict=True):
                group["lr"] = rate * relative
            rows = torch.randperm(count, generator=generator)[: options.train_batch_size]
            with torch.enable_grad():
                value = loss(operator, rows, generator)
                # Of the operator alone: the VAE's weights must not gather gradients.
                gradients = torch.autograd.grad(value, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            watched.follow(parameters, step)
            if clock.looks(step + 1) and watched.look() >= _PATIENCE:
                break
            if clock.share(step + 1) >= 1:
                break
    return watched.best if watched.improved else None


def _rate(share: float) -> float:
    if share < _WARM_UP:
        return max(share, 1e-3) / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - _WARM_UP) / (1 - _WARM_UP))))


class _Clock:
    """How much of the steps or of the seconds is over, whichever is more."""

    def __init__(self, steps: int, seconds: float) -> None:
        self.steps, self.seconds = steps, seconds
        self.began, self.looked = time.monotonic(), 0

    def share(self, step: int) -> float:
        """From 0 to 1, and beyond when the seconds are over."""
        return max(step / self.steps, (time.monotonic() - self.began) / self.seconds)

    def looks(self, step: int) -> bool:
        """Whether another tenth is over since this was true last."""
        tenth = min(_CHECKS, int(self.share(step) * _CHECKS + 1e-9))
        due = tenth > self.looked
        self.looked = max(self.looked, tenth)
        return due


@dataclass
class _Watched:
    """The average of an operator's weights, and the best of it so far.

    Attributes:
        operator: what is trained.
        score: the higher the better.
    """

    operator: LatentOperator
    score: Callable[[LatentOperator], float]
    averaged: LatentOperator = field(init=False)
    best: LatentOperator = field(init=False)
    best_score: float = field(init=False)
    without: int = 0
    improved: bool = False

    def __post_init__(self) -> None:
        self.averaged = copy.deepcopy(self.operator).requires_grad_(False)
        self.best, self.best_score = copy.deepcopy(self.averaged), self.score(self.averaged)

    def follow(self, parameters: list[torch.nn.Parameter], step: int) -> None:
        """Take a share of the newest weights in."""
        decay = min(_DECAY, step / (step + 10))
        for mine, new in zip(self.averaged.parameters(), parameters, strict=True):
            mine.lerp_(new.detach(), 1 - decay)

    def look(self) -> int:
        """How many looks have passed without a better score, this one counted."""
        found = self.score(self.averaged)
        self.without = 0 if found > self.best_score else self.without + 1
        if found > self.best_score:
            self.best, self.best_score = copy.deepcopy(self.averaged), found
            self.improved = True
        return self.without
