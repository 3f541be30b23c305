"""Random items, repeatable by their place alone: not by the process, the worker or what was read before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["drawing"]


@contextmanager
def drawing(*place: int) -> Iterator[None]:
    """Seed the global draws of Python, numpy and torch by a place, and put back what was there.

    Args:
        place: whole numbers, as `(seed, epoch, rank, index)`.
    """
    seeds = np.random.SeedSequence([number % 2**64 for number in place]).generate_state(3)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(int(seeds[0]))
    np.random.seed(int(seeds[1]))  # noqa: NPY002, what the augmentations of users draw from
    torch.default_generator.manual_seed(int(seeds[2]))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
