"""A small residual network on top of a fitted convolution, trained on the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equivae.operators.modules import ResidualOperator
from equivae.options import BATCH, SEED, Options, above, at_least, option

__all__ = ["NetworkOptions", "train_network"]


@dataclass(frozen=True)
class NetworkOptions(Options):
    """Of the residual network and its training on latent pairs."""

    max_train_steps: int = option(300, "Optimiser steps.", range=at_least(1))
    learning_rate: float = option(1e-3, "Of Adam.", range=above(0))
    train_batch_size: int = option(8, "Images per step.", range=BATCH)
    width: int = option(64, "Channels inside the network.", range=at_least(1, 4096))
    seed: int = option(0, "Of the weights and the order.", range=SEED)


def train_network(
    operator: ResidualOperator,
    pairs: Sequence[tuple[Tensor, Tensor, Tensor | None]],
    options: NetworkOptions,
    progress: bool = True,
) -> ResidualOperator:
    """Train the network and the convolution below it on `(moved, target, mask)` batches; MSE, AdamW, cosine.

    Returns the operator, frozen again.
    """
    from tqdm.auto import tqdm

    device = next(operator.parameters()).device
    generator = torch.Generator().manual_seed(options.seed)
    masks = [mask for _, _, mask in pairs]
    sources = torch.cat([moved for moved, _, _ in pairs])
    targets = torch.cat([target for _, target, _ in pairs])
    counting = torch.cat(
        [
            torch.ones(len(moved), 1, *moved.shape[2:])
            if mask is None
            else mask.cpu().float().expand(len(moved), 1, *moved.shape[2:])
            for (moved, _, _), mask in zip(pairs, masks, strict=True)
        ]
    )
    operator.requires_grad_(True)
    optimizer = torch.optim.AdamW(operator.parameters(), options.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, max(2, options.max_train_steps), pct_start=0.1
    )
    size = min(options.train_batch_size, len(sources))
    for _ in tqdm(
        range(options.max_train_steps), desc="network", disable=not progress, leave=False
    ):
        rows = torch.randint(len(sources), (size,), generator=generator)
        moved, target, inside = (t[rows].to(device) for t in (sources, targets, counting))
        with torch.enable_grad():
            loss = ((operator(moved) - target).square() * inside).mean()
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        schedule.step()
    operator.requires_grad_(False)
    return operator
