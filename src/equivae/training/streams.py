"""Batches of a stream: read by one process, decoded by workers, resumed behind the image that came last."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from equivae.data.sources import collate
from equivae.data.streaming import Decoding, Example, ImageStream, Place
from equivae.training.batches import cut
from equivae.training.config import FinetuneConfig
from equivae.training.order import draws_of
from equivae.training.trainer import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["StreamBatches"]

_REMEMBERED = 4096  # batches whose names can be asked for


class StreamBatches:
    """Batches of images for an `Objective`, of this process' share of a stream, in one pass without an end.

    Args:
        stream: the images.
        config: batch size, accumulation, crops, flips, seed, workers.
        accelerator: says which share is this process', and has the device.
    """

    def __init__(
        self, stream: ImageStream, config: FinetuneConfig, accelerator: Accelerator
    ) -> None:
        self.stream, self.config, self.device = stream, config, accelerator.device
        self.processes, self.rank = accelerator.num_processes, accelerator.process_index
        self._place: Place | None = None
        self._names: dict[int, list[str]] = {}
        self._planned: deque[list[Example]] = deque()

    def place(self) -> Place | None:
        """Behind the last image that was learned from, for `go_on`."""
        return self._place

    def go_on(self, places: list[Any]) -> None:
        """Take up the place of this process; with another number of processes begin another pass."""
        if len(places) == self.processes:
            self._place = places[self.rank]
        elif places:
            done = 1 + max(place["pass"] for place in places)
            self._place = {"pass": done, "start": None, "given": 0}

    def epoch(self, epoch: int, samples: int) -> Iterator[Batch]:
        """The batches from so many samples of this process on, which have no end."""
        config, together = self.config, self.config.gradient_accumulation_steps
        number = samples // config.train_batch_size
        for images in self._loaded():
            examples = self._planned.popleft()
            self._place = examples[-1].place
            self._remember(samples, examples)
            draws = draws_of(config.seed, epoch, samples, self.rank)
            yield Batch(
                content=(cut(images, config, draws), None, draws, None),
                size=len(images),
                share=1 / together,
                closes=(number + 1) % together == 0,
            )
            number, samples = number + 1, samples + len(images)

    def names_of(self, epoch: int, samples: int) -> list[str]:
        """The names of the images of a batch, by the samples of this process before it."""
        return self._names.get(samples, [])

    def _loaded(self) -> Iterator[Tensor]:
        self._planned.clear()
        loader: Any = DataLoader(
            Decoding(self.stream.preparing),
            batch_sampler=_Lists(self),  # type: ignore[arg-type]
            generator=torch.Generator(),  # an iterator's seed, else taken from the global state
            collate_fn=_collate,
            num_workers=self.config.dataloader_num_workers,
            pin_memory=self.device.type == "cuda",
        )
        for images, lost in loader:
            for name, reason in lost:
                self.stream.note(name, reason)
            yield images.to(self.device, non_blocking=True)

    def _lists(self) -> Iterator[list[Example]]:
        examples = self.stream.examples(self.rank, self.processes, self._place)
        while some := list(islice(examples, self.config.train_batch_size)):
            self._planned.append(some)
            yield some

    def _remember(self, samples: int, examples: list[Example]) -> None:
        self._names[samples] = [example.name for example in examples]
        if len(self._names) > _REMEMBERED:
            del self._names[next(iter(self._names))]


class _Lists:
    """What a `DataLoader` takes for a batch sampler: lists of examples in the place of lists of indices."""

    def __init__(self, batches: StreamBatches) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[Example]]:
        return self._batches._lists()


def _collate(items: list[tuple[Tensor, str, str]]) -> tuple[Tensor, list[tuple[str, str]]]:
    """The images, and the name and reason of each that another one stands in for."""
    lost = [(name, reason) for _, name, reason in items if reason]
    return collate([image for image, _, _ in items]), lost
