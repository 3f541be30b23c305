"""Random items, repeatable by their place alone: not by the process, the worker or what was read before."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["drawing", "draws_anything"]


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


def draws_anything(read: Callable[[], Any]) -> bool:
    """Whether a read takes a random number from the generators of Python, numpy or torch."""
    with drawing(0):
        before = _states()
        read()
        return _states() != before


def _states() -> tuple[Any, ...]:
    legacy = np.random.get_state()  # noqa: NPY002
    words = [part.tobytes() if isinstance(part, np.ndarray) else part for part in legacy]
    return random.getstate(), words, torch.get_rng_state().numpy().tobytes()
