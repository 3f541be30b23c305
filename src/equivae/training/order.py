"""What makes a run repeatable: the order of the images and the draws of a batch, by seed and place alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np
import torch
from torch.utils.data import Sampler

__all__ = ["Order", "draws_of", "epoch_generator"]


class Order(Sampler[int]):
    """A shuffle that depends on seed and epoch alone, and can begin in the middle of an epoch.

    An epoch is filled up with its first images to a `multiple`, so that several processes get as many
    batches each. Left to accelerate, a resumed epoch would be filled up with those where it resumed.
    """

    def __init__(self, images: int, seed: int, multiple: int = 1) -> None:
        self.images, self.seed, self.epoch, self.skip = images, seed, 0, 0
        self.length = -(-images // multiple) * multiple

    def start(self, epoch: int, skip: int) -> None:
        self.epoch, self.skip = epoch, skip

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return islice(cycle(self._shuffled(self.epoch)), self.skip, self.length)

    def _shuffled(self, epoch: int) -> list[int]:
        generator = epoch_generator(self.seed, epoch)
        order: list[int] = torch.randperm(self.images, generator=generator).tolist()
        return order

    def of_batch(self, epoch: int, place: int, size: int) -> list[int]:
        """The images of one batch of an epoch, those of all processes counted through."""
        start, end = place * size, min((place + 1) * size, self.length)
        return list(islice(cycle(self._shuffled(epoch)), start, end))


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """What an epoch is shuffled with."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def draws_of(seed: int, epoch: int, sample: int, rank: int) -> torch.Generator:
    """The draws of one batch depend on seed, place and process alone, so that a resumed run agrees."""
    # Mixed into 32 bits, since torch's CPU generator ignores the others of a seed.
    mixed = np.random.SeedSequence([seed, epoch, sample, rank]).generate_state(1)
    return torch.Generator().manual_seed(int(mixed[0]))
