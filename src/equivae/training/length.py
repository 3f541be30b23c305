"""How many steps a run has, and in which order it takes its images."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from equivae.data.sources import ImageDataset
from equivae.errors import InputError
from equivae.processes import process_state
from equivae.training.config import FinetuneConfig, Recipe
from equivae.training.feeding import Feed
from equivae.training.order import Order

__all__ = ["max_steps_of", "order_of", "warmup_steps_of"]

logger = logging.getLogger(__name__)


def order_of(config: FinetuneConfig, images: ImageDataset) -> Order:
    """The order of the images, filled up so that every process gets as many batches."""
    processes = process_state().num_processes
    multiple = config.train_batch_size * processes if processes > 1 else 1
    return Order(len(images), config.seed, multiple)


def max_steps_of(config: FinetuneConfig, images: ImageDataset, feed: Feed) -> int:
    """Optimiser steps in all: as many as asked for, or those of the epochs asked for.

    Says so where the processes of one step take more images than there are.
    """
    state = process_state()
    together = config.train_batch_size * int(state.num_processes)
    repeats = feed.stream is None and together > len(images) and state.num_processes > 1
    if repeats and state.is_main_process:
        logger.warning(
            "A step of %d processes takes %d images and there are %d, so every step repeats some of "
            "them; lower train_batch_size, or start fewer processes.",
            state.num_processes,
            together,
            len(images),
        )
    if config.max_train_steps:
        return config.max_train_steps
    batches = feed.batches(config) or math.ceil(len(order_of(config, images)) / together)
    return config.num_train_epochs * math.ceil(batches / config.gradient_accumulation_steps)


def warmup_steps_of(
    config: FinetuneConfig, recipe: Recipe, options: Mapping[str, Any], max_steps: int
) -> int:
    """As many as asked for; where nobody asked, at most a quarter of a short run."""
    if "lr_warmup_steps" not in {**recipe.options, **options}:
        return min(config.lr_warmup_steps, max_steps // 4)
    if config.lr_warmup_steps > max_steps:
        raise InputError(
            f"lr_warmup_steps={config.lr_warmup_steps} is more than the {max_steps} steps of the run; lower "
            "it, or raise max_train_steps."
        )
    return config.lr_warmup_steps
