"""Gradient steps after the closed form: on the error of the latents, or on that of what they decode to."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder, evaluating
from equivae.operators.decoding import squared_error
from equivae.operators.modules import LatentOperator
from equivae.operators.options import NetworkOptions
from equivae.transforms import Transform

__all__ = ["Examples", "Images", "MovedImages", "decoded_loss", "latent_loss", "refine"]

_WARM_UP, _DECAY, _CHECKS, _PATIENCE = 0.1, 0.95, 10, 4


@dataclass(frozen=True)
class Examples:
    """What the steps learn from: inputs and targets `(N, c, *grid)` and the cells that count, on the CPU."""

    inputs: Tensor
    targets: Tensor
    mask: Tensor | None

    @classmethod
    def of(
        cls, inputs: Sequence[Tensor], targets: Sequence[Tensor], mask: Tensor | None
    ) -> Examples:
        """Batches, one after another."""
        return cls(torch.cat([*inputs]).cpu(), torch.cat([*targets]).cpu(), mask)


Loss = Callable[[LatentOperator, Tensor], Tensor]


class Images(Protocol):
    """Images by position."""

    def __getitem__(self, index: int) -> Tensor:
        """`(C, H, W)` in [-1, 1]."""


@dataclass(frozen=True)
class MovedImages:
    """The images that the way back starts from."""

    images: Images
    transform: Transform

    def __getitem__(self, index: int) -> Tensor:
        return self.transform.pixel(self.images[index][None])[0]


def latent_loss(examples: Examples) -> Loss:
    """`‖ρ E(x) - E(T x)‖²`, mean over the cells that count of the rows asked for."""

    def loss(operator: LatentOperator, rows: Tensor) -> Tensor:
        like = next(operator.parameters())
        moved = operator(examples.inputs[rows].to(like))
        squares = (moved - examples.targets[rows].to(like)).square()
        if examples.mask is not None:
            squares = squares[..., examples.mask]
        mean: Tensor = squares.mean()
        return mean

    return loss


def decoded_loss(
    examples: Examples, vae: Autoencoder, transform: Transform, images: Images
) -> Loss:
    """`‖D(ρ E(x)) - T(x)‖²`, mean over the pixels that count; `images` are those of the rows."""

    def loss(operator: LatentOperator, rows: Tensor) -> Tensor:
        x = torch.stack([images[row] for row in rows.tolist()]).to(vae.device, vae.dtype)
        moved = operator(examples.inputs[rows].to(vae.device)).to(vae.dtype)
        squares, count = squared_error(vae.decode(moved), transform.pixel(x), transform.mask(x))
        return squares / count

    return loss


def refine(
    operator: LatentOperator,
    loss: Loss,
    count: int,
    vae: Autoencoder,
    score: Callable[[LatentOperator], float],
    options: NetworkOptions,
    progress: bool = True,
) -> LatentOperator:
    """Train an operator, nothing else, and give back the best average of its weights.

    Adam with a warm-up and a cosine, an average of the weights that follows them, and ten looks at how
    that does on held-out images: the best is kept, and four without a better one end it.

    Args:
        operator: where to start; it is trained itself.
        loss: of the operator on some rows.
        count: how many rows there are.
        vae: run in evaluation mode while this trains.
        score: the higher the better, on held-out images.
        options: steps, learning rate, batch and seed.
        progress: show a progress bar.
    """
    from tqdm.auto import tqdm

    operator = operator.to(vae.device).requires_grad_(True)
    parameters = list(operator.parameters())
    optimizer = torch.optim.Adam(parameters, options.learning_rate)
    averaged = copy.deepcopy(operator).requires_grad_(False)
    best, best_score, without = copy.deepcopy(averaged), score(averaged), 0
    generator = torch.Generator().manual_seed(options.seed)
    steps = options.max_train_steps
    every = max(1, steps // _CHECKS)
    with evaluating(vae.module), vae.full_precision():
        for step in tqdm(range(steps), desc="refine", disable=not progress, leave=False):
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * _rate(step, steps)
            rows = torch.randperm(count, generator=generator)[: options.train_batch_size]
            with torch.enable_grad():
                value = loss(operator, rows)
                # Of the operator alone: the VAE's weights must not gather gradients.
                gradients = torch.autograd.grad(value, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            decay = min(_DECAY, step / (step + 10))
            for mine, new in zip(averaged.parameters(), parameters, strict=True):
                mine.lerp_(new.detach(), 1 - decay)
            if (step + 1) % every == 0 or step + 1 == steps:
                found = score(averaged)
                without = 0 if found > best_score else without + 1
                if found > best_score:
                    best, best_score = copy.deepcopy(averaged), found
                if without >= _PATIENCE:
                    break
    return best


def _rate(step: int, steps: int) -> float:
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
