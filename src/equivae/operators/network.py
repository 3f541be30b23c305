"""A small residual network on top of a fitted convolution, trained on the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equivae.errors import InputError
from equivae.operators.modules import ResidualOperator

__all__ = ["NetworkOptions", "train_network"]


@dataclass(frozen=True)
class NetworkOptions:
    """Of the residual network and its training on latent pairs."""

    max_train_steps: int = 300
    learning_rate: float = 1e-3
    train_batch_size: int = 8
    width: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_train_steps", "train_batch_size", "width"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate must be above 0, got {self.learning_rate}.")


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
