"""Passes over the images: in which order, on which crops, with which draws, and what makes a step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from equivae.data.sources import collate
from equivae.training.config import FinetuneConfig
from equivae.training.crops import random_crops, random_flips
from equivae.training.latents import WithCached
from equivae.training.order import Order, draws_of
from equivae.training.trainer import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["ImageBatches", "cut"]


def cut(images: Tensor, config: FinetuneConfig, draws: torch.Generator) -> Tensor:
    """Random crops and flips of a batch, as the options ask for them."""
    crops = random_crops(images, config.crop_size, draws)
    return random_flips(crops, draws) if config.random_flip else crops


class ImageBatches:
    """Batches of images for an `Objective`, shared out among the processes.

    Args:
        images: items `{"images": (C, H, W)}`, with `"latents"` and `"taught"` where they are cached.
        order: of the images in every pass.
        config: batch size, accumulation, crops, flips, seed, workers.
        accelerator: shares the batches out, and moves them to its device.
    """

    def __init__(
        self,
        images: WithCached,
        order: Order,
        config: FinetuneConfig,
        accelerator: Accelerator,
    ) -> None:
        self.images, self.order, self.config = images.images, order, config
        self.processes, self.rank = accelerator.num_processes, accelerator.process_index
        loader: Any = DataLoader(
            images,
            config.train_batch_size,
            sampler=order,
            generator=torch.Generator(),  # an iterator's seed, else taken from the global state
            collate_fn=collate,
            num_workers=config.dataloader_num_workers,
            pin_memory=accelerator.device.type == "cuda",
        )
        self.loader = accelerator.prepare(loader)
        self.batches = math.ceil(math.ceil(len(order) / config.train_batch_size) / self.processes)

    def epoch(self, epoch: int, samples: int) -> Iterator[Batch]:
        """The batches of a pass, from so many samples of this process on.

        Several batches make a step under `gradient_accumulation_steps`; each has its share of the step's
        images, in a last, shorter step too.
        """
        config, together = self.config, self.config.gradient_accumulation_steps
        self.order.start(epoch, samples * self.processes)
        self.images.set_draws(config.seed, epoch, self.rank)
        place = samples // config.train_batch_size
        for batch in self.loader:
            images = batch["images"]
            size = len(images)
            draws = draws_of(config.seed, epoch, samples, self.rank)
            crops = cut(images, config, draws)
            yield Batch(
                content=(crops, batch.get("latents"), draws, batch.get("taught")),
                size=size,
                share=size / self._images_of_step(place // together),
                closes=(place + 1) % together == 0 or place + 1 == self.batches,
            )
            place, samples = place + 1, samples + size

    def names_of(self, epoch: int, samples: int) -> list[str]:
        """The names of the images of a batch, by the samples of this process before it."""
        size = self.config.train_batch_size
        place = samples // size * self.processes + self.rank
        return [self.images.names[index] for index in self.order.of_batch(epoch, place, size)]

    def _images_of_step(self, step: int) -> int:
        """How many images of a pass its step gets, on this process."""
        per_step = self.config.train_batch_size * self.config.gradient_accumulation_steps
        mine = len(self.order) // self.processes
        return int(min(per_step, mine - step * per_step))
