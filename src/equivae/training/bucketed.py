"""Batches of pictures of many shapes, each batch of one bucket."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from equivae.data.buckets import Buckets
from equivae.data.images import ImageDataset
from equivae.data.sources import collate
from equivae.training.batches import cut
from equivae.training.config import FinetuneConfig
from equivae.training.order import draws_of, epoch_generator
from equivae.training.trainer import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["BucketBatches", "BucketedImages"]


class BucketedImages(Dataset[Any]):
    """Images at the size of their buckets, and which of them are in which.

    Args:
        images: of any preparation; they are prepared anew.
        buckets: the sizes.

    Attributes:
        members: height and width to the positions of its images.
    """

    def __init__(self, images: ImageDataset, buckets: Buckets) -> None:
        self.images = images.prepared_at(buckets)
        self.members: dict[tuple[int, int], list[int]] = {}
        for index, sides in enumerate(images.all_sides()):
            side = buckets.of(*sides)
            self.members.setdefault(side, []).append(index)
        self.members = dict(sorted(self.members.items()))

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        """A batch, of one bucket; one of it that cannot be read is replaced by another one of it."""
        return self.images.take_together(indices)

    def lists(self, batch_size: int, processes: int, generator: torch.Generator) -> list[list[int]]:
        """The batches of a pass, those of all processes together, in the order of the draws.

        A bucket ends with a smaller batch, filled up only so far that every process gets as many images.
        """
        found: list[list[int]] = []
        for members in self.members.values():
            drawn = torch.randperm(len(members), generator=generator).tolist()
            order = [members[place] for place in drawn]
            whole = list(islice(cycle(order), -(-len(order) // processes) * processes))
            step = batch_size * processes
            found += [whole[i : i + step] for i in range(0, len(whole), step)]
        order = torch.randperm(len(found), generator=generator).tolist()
        return [found[place] for place in order]


class BucketBatches:
    """Batches of images for an `Objective`, each of one bucket, shared out among the processes.

    Args:
        images: in their buckets.
        config: batch size, accumulation, flips, seed, workers.
        accelerator: says which share is this process', and has the device.
    """

    def __init__(
        self, images: BucketedImages, config: FinetuneConfig, accelerator: Accelerator
    ) -> None:
        self.images, self.config, self.device = images, config, accelerator.device
        self.processes, self.rank = accelerator.num_processes, accelerator.process_index
        self._names: tuple[int, dict[int, list[int]]] = (-1, {})

    def epoch(self, epoch: int, samples: int) -> Iterator[Batch]:
        """The batches of a pass, from so many samples of this process on."""
        config, together = self.config, self.config.gradient_accumulation_steps
        mine = self._lists(epoch)
        of_step = [sum(map(len, mine[i : i + together])) for i in range(0, len(mine), together)]
        first, done = 0, 0
        while done < samples:
            first, done = first + 1, done + len(mine[first])
        self.images.images.set_draws(config.seed, epoch, self.rank)
        loader: Any = DataLoader(
            self.images,
            batch_sampler=mine[first:],
            generator=torch.Generator(),  # an iterator's seed, else taken from the global state
            collate_fn=collate,
            num_workers=config.dataloader_num_workers,
            pin_memory=self.device.type == "cuda",
        )
        for place, images in enumerate(loader, first):
            draws = draws_of(config.seed, epoch, samples, self.rank)
            yield Batch(
                content=(
                    cut(images.to(self.device, non_blocking=True), config, draws),
                    None,
                    draws,
                    None,
                ),
                size=len(images),
                share=len(images) / of_step[place // together],
                closes=(place + 1) % together == 0 or place + 1 == len(mine),
            )
            samples += len(images)

    def names_of(self, epoch: int, samples: int) -> list[str]:
        """The names of the images of a batch, by the samples of this process before it."""
        if self._names[0] != epoch:
            places, done = {}, 0
            for indices in self._lists(epoch):
                places[done], done = indices, done + len(indices)
            self._names = epoch, places
        return [self.images.images.names[index] for index in self._names[1].get(samples, [])]

    def _lists(self, epoch: int) -> list[list[int]]:
        generator = epoch_generator(self.config.seed, epoch)
        every = self.images.lists(self.config.train_batch_size, self.processes, generator)
        return [indices[self.rank :: self.processes] for indices in every]
