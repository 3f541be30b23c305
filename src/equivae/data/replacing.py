"""Which images of a set could not be read when it was their turn, counted over all worker processes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeVar

import torch

__all__ = ["Losses", "filled_up", "shared_zeros"]

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


class Losses:
    """A flag for each image of a source, in memory that the workers of a `DataLoader` share."""

    def __init__(self, count: int) -> None:
        self._flags = shared_zeros(count, torch.uint8)
        self._reasons: dict[int, str] = {}

    def note(self, place: int, reason: str) -> bool:
        """Remember that an image could not be read; whether that is news."""
        news = not self._flags[place]
        self._flags[place] = 1
        self._reasons.setdefault(place, reason)
        return news

    def places(self) -> set[int]:
        """Of all images that could not be read so far, in any process that shares this memory."""
        return set(self._flags.nonzero().flatten().tolist())

    def reason(self, place: int) -> str:
        return self._reasons.get(place, "a worker process could not read it")


def filled_up(items: Sequence[Item | None]) -> list[Item] | None:
    """What is missing replaced by what comes next, around the end; `None` where everything is missing."""
    count, found = len(items), list[Item]()
    for place in range(count):
        ahead = (items[(place + step) % count] for step in range(count))
        item = next((one for one in ahead if one is not None), None)
        if item is None:
            return None
        found.append(item)
    return found


def shared_zeros(count: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor that worker processes see and change as well; one of this process where there is no such."""
    with torch.inference_mode(False):  # else it could not be changed outside of that of a caller
        zeros = torch.zeros(count, dtype=dtype)
    try:
        zeros.share_memory_()  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError) as error:
        logger.info("no memory to share with workers: %s", error)
    return zeros
