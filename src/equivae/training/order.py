"""What makes a run repeatable: the order of the images and the draws of a batch, by seed and place alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler

__all__ = ["Order", "draws_of"]


class Order(Sampler[int]):
    """A shuffle that depends on seed and epoch alone, and can begin in the middle of an epoch."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch, self.skip = length, seed, 0, 0

    def start(self, epoch: int, skip: int) -> None:
        self.epoch, self.skip = epoch, skip

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.length, generator=generator).tolist()
        return iter(order[self.skip :])


def draws_of(seed: int, epoch: int, sample: int, rank: int) -> torch.Generator:
    """The draws of one batch depend on seed, place and process alone, so that a resumed run agrees."""
    # Mixed into 32 bits, since torch's CPU generator ignores the others of a seed.
    mixed = np.random.SeedSequence([seed, epoch, sample, rank]).generate_state(1)
    return torch.Generator().manual_seed(int(mixed[0]))
