"""Images of a stream, in an order that a checkpoint can hold: shards, blocks, and the place in them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from equivae.data.base import digest, digest_of
from equivae.data.images import ImageDataset
from equivae.data.items import ItemSource
from equivae.data.preparing import Preparing
from equivae.data.replacing import filled_up
from equivae.data.shards import Shards
from equivae.data.unreadable import UnreadableImage
from equivae.errors import InputError

__all__ = ["Decoding", "Example", "ImageStream", "Place"]

logger = logging.getLogger(__name__)

Place = dict[str, Any]
"""Where a process stands, in JSON types: its `pass`, the `start` of its block, the images `given` of it."""


@dataclass(frozen=True)
class Example:
    """An image as the stream has it.

    Attributes:
        name: of its shard and its row.
        item: encoded, where it is a picture.
        place: behind it.
    """

    name: str
    item: Any
    place: Place


class FirstOfStream(ItemSource):
    """The first images of a stream, still encoded, in memory."""

    def __init__(self, named: Sequence[tuple[str, Any]], preparing: Preparing) -> None:
        super().__init__([item for _, item in named], preparing)
        self.names = [name for name, _ in named]

    def about(self) -> str:
        return f"stream {self._preparing}"

    def marks(self) -> list[str]:
        """A digest of every image as the stream has it."""
        return [_digest(item, self._preparing) for item in self._items]


class ImageStream:
    """Images that are read shard by shard, without an end, for one of several processes.

    Every process has shards of its own, in another order at every pass; within them blocks of
    `shuffle_buffer` images are shuffled. Both depend on the seed and the place alone, so that reading can go
    on behind any image. What `datasets` shuffles by itself cannot.

    Args:
        shards: what is read.
        preparing: how images become tensors.
        shuffle_buffer: images that are shuffled together.
        seed: of both orders.

    Attributes:
        replaced: `(name, reason)` of images that another one of their batch stood in for.
    """

    def __init__(
        self,
        shards: Shards,
        preparing: Preparing,
        *,
        shuffle_buffer: int = 1000,
        seed: int = 0,
    ) -> None:
        self.shards, self.preparing = shards, preparing
        self.shuffle_buffer, self.seed = shuffle_buffer, seed
        self.held_out: frozenset[str] = frozenset()
        self.replaced: list[tuple[str, str]] = []

    def first(self, count: int) -> ImageDataset:
        """The first images, as they come, whose marks `without` takes; `InputError` if there are none."""
        named: list[tuple[str, Any]] = []
        reader = _Reader(self.shards, range(len(self.shards)))
        while len(named) < count and (some := reader.block(count - len(named))[1]):
            named += some
        if not named:
            raise InputError("the stream is empty; at least one image is needed.")
        return ImageDataset(FirstOfStream(named, self.preparing))

    def without(self, marks: Collection[str]) -> ImageStream:
        """The same stream, without the images of these marks."""
        other = copy(self)
        other.held_out = self.held_out | frozenset(marks)
        return other

    def examples(self, rank: int, processes: int, place: Place | None = None) -> Iterator[Example]:
        """The images of one process, from a place on, pass after pass."""
        place = place or {"pass": 0, "start": None, "given": 0}
        number, start, given = place["pass"], place["start"], place["given"]
        pool = ThreadPoolExecutor(1)  # reads the next block while this one is learned from
        try:
            while True:
                reader = self._reader(number, rank, processes, start)
                following = pool.submit(reader.block, self.shuffle_buffer)
                empty = start is None
                while True:
                    start, block = following.result()
                    if not block:
                        break
                    empty = False
                    following = pool.submit(reader.block, self.shuffle_buffer)
                    order = self._drawn(len(block), rank, number, start["turn"], start["index"])
                    for index in order[given:]:
                        given += 1
                        yield Example(
                            *block[index], {"pass": number, "start": start, "given": given}
                        )
                    given = 0
                if empty:
                    raise InputError(
                        f"process {rank} finds no image to learn from in the stream; give it more shards, or "
                        "start fewer processes."
                    )
                number, start, given = number + 1, None, 0
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _reader(self, number: int, rank: int, processes: int, start: Place | None) -> _Reader:
        mine = shards_of(len(self.shards), rank, processes)
        order = [mine[i] for i in self._drawn(len(mine), rank, number)]
        every = (rank, processes) if len(self.shards) < processes else (0, 1)
        left_out = (self.held_out, self.preparing) if self.held_out else None
        return _Reader(self.shards, order, start, every, left_out)

    def _drawn(self, count: int, *place: int) -> list[int]:
        """A permutation that depends on the seed and a place alone."""
        mixed = np.random.SeedSequence([self.seed, *place]).generate_state(1)
        generator = torch.Generator().manual_seed(int(mixed[0]))
        order: list[int] = torch.randperm(count, generator=generator).tolist()
        return order

    def note(self, name: str, reason: str) -> None:
        """Remember, and say once, that an image could not be read."""
        if (name, reason) not in self.replaced:
            self.replaced.append((name, reason))
            logger.warning("image %s is replaced by another one of its batch: %s", name, reason)

    def say_how_it_is_shared(self, processes: int) -> None:
        """A warning where the shards do not divide by the processes."""
        count = len(self.shards)
        if count < processes:
            logger.warning(
                "the stream has %d shards for %d processes: every process reads all of it and keeps one "
                "image in %d; make at least %d shards.",
                count,
                processes,
                processes,
                processes,
            )
        elif count % processes:
            logger.warning(
                "the %d shards of the stream do not divide by %d processes: some have one more than others, "
                "whose images come up more often; make a multiple of %d.",
                count,
                processes,
                processes,
            )

    def fingerprint(self) -> str:
        """A short digest of shards and preparation."""
        return digest(["stream", str(self.preparing), *(" ".join(r) for r in self.shards.record())])


def shards_of(count: int, rank: int, processes: int) -> list[int]:
    """The shards of one process: its own, or all of them where there are fewer than processes."""
    return list(range(rank, count, processes)) if count >= processes else list(range(count))


class _Reader:
    """The images of some shards, one after another, and where it stands.

    Args:
        shards: all of them.
        order: which are read.
        start: where: `turn` in the order, `index` in the shard, and its `state`.
        every: `(k, n)` keeps the `k`-th of `n` images.
        left_out: marks of images that are passed over, and how those are prepared.
    """

    def __init__(
        self,
        shards: Shards,
        order: Sequence[int],
        start: Place | None = None,
        every: tuple[int, int] = (0, 1),
        left_out: tuple[Collection[str], Preparing] | None = None,
    ) -> None:
        self.shards, self.order, self.every, self.left_out = shards, order, every, left_out
        start = start or {"turn": 0, "index": 0, "state": None}
        self.turn, self.index, self.state = start["turn"], start["index"], start["state"]
        self._rows: Any = None
        self._images = self._read()

    def block(self, count: int) -> tuple[Place, list[tuple[str, Any]]]:
        """Where it stands, and the next so many images; none at the end."""
        state = self.state if self._rows is None else self._rows.state_dict()
        start = {"turn": self.turn, "index": self.index, "state": state}
        return start, list(islice(self._images, count))

    def _read(self) -> Iterator[tuple[str, Any]]:
        mine, every = self.every
        while self.turn < len(self.order):
            shard = self.order[self.turn]
            self._rows = self.shards.open(shard, self.state)
            for row in self._rows:
                self.index += 1
                if (self.index - 1) % every != mine:
                    continue
                name, item = self.shards.example(row, shard, self.index - 1)
                if self.left_out is None or not self._is_left_out(item):
                    yield name, item
            self.turn, self.index, self.state, self._rows = self.turn + 1, 0, None, None

    def _is_left_out(self, item: Any) -> bool:
        assert self.left_out is not None
        marks, preparing = self.left_out
        return _digest(item, preparing) in marks


class Decoding(Dataset[Any]):
    """Examples as tensors, for the workers of a `DataLoader` whose batch sampler gives lists of examples.

    So one process alone reads the stream, its place is the same whatever the workers, and none of them
    repeats what another one has.
    """

    def __init__(self, preparing: Preparing) -> None:
        self.preparing = preparing

    def __getitems__(self, examples: list[Example]) -> list[tuple[Tensor, str, str]]:
        """`(image, name, reason)` of each; one that cannot be read is replaced by its neighbour."""
        found: list[Tensor | None] = []
        reasons: list[str] = []
        for example in examples:
            try:
                image = self.preparing(example.item, example.name)
                if not torch.isfinite(image).all():
                    raise InputError(f"image {example.name} holds NaN or infinite values.")
                found, reasons = [*found, image], [*reasons, ""]
            except UnreadableImage as error:
                found, reasons = [*found, None], [*reasons, error.reason]
        whole = filled_up(found)
        if whole is None:
            raise UnreadableImage.named(
                examples[0].name, f"{reasons[0]}, nor can any other image of its batch"
            )
        return list(zip(whole, [example.name for example in examples], reasons, strict=True))


def _digest(item: Any, preparing: Preparing) -> str:
    """What tells an image of a stream from another: its bytes, or its values."""
    if isinstance(item, Mapping) and isinstance(item.get("bytes"), bytes):
        return digest([item["bytes"]])
    try:
        return digest_of(preparing(item, "of the stream"))
    except UnreadableImage as error:
        return digest([error.reason])
