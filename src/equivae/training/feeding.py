"""What the batches of a run are cut from, where that is no set of images of one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.data.base import digest
from equivae.data.buckets import make_buckets
from equivae.data.images import ImageDataset
from equivae.data.streaming import ImageStream
from equivae.errors import InputError
from equivae.processes import process_state
from equivae.training.bucketed import BucketedImages
from equivae.training.config import FinetuneConfig
from equivae.training.order import epoch_generator
from equivae.transforms import Transform

__all__ = ["Feed", "check_shapes", "feed_of"]

_LOOKED_AT = 4  # images of a stream that tell whether it repeats itself
_TRIES = 8  # draws of a transform


@dataclass(frozen=True)
class Feed:
    """Where batches come from, beside the set that everything else of a run looks at.

    Attributes:
        stream: images without an end.
        buckets: the set's images at other sizes.
    """

    stream: ImageStream | None = None
    buckets: BucketedImages | None = None

    def batches(self, config: FinetuneConfig) -> int | None:
        """Batches of a pass, on each process; `None` where the set tells it. `InputError` for a stream."""
        if self.stream is not None:
            raise InputError(
                "a stream has no length that is known, so the run needs max_train_steps; or take the first "
                "images of it into memory with max_train_samples."
            )
        if self.buckets is None:
            return None
        processes = process_state().num_processes
        return len(self.buckets.lists(config.train_batch_size, processes, epoch_generator(0, 0)))

    def fingerprint(self, images: ImageDataset) -> str:
        """Of the set, and of the stream."""
        own = images.fingerprint()
        return own if self.stream is None else digest([own, self.stream.fingerprint()])


def feed_of(
    stream: ImageStream | None,
    training: ImageDataset,
    held_out: ImageDataset | None,
    config: FinetuneConfig,
    vae: Autoencoder,
) -> Feed:
    """What the options ask for; `InputError` where it does not go together.

    Args:
        stream: whose first images the set is.
        training: the set.
        held_out: the share of the stream's first images that is not learned from.
    """
    if stream is not None:
        if config.enable_bucket:
            raise InputError(
                "enable_bucket needs images whose sizes are known, unlike those of a stream; leave it out, "
                "or take the first images into memory with max_train_samples."
            )
        if held_out is None:
            return Feed(stream)
        known = {*training.marks(), *held_out.marks()}
        if not known.issuperset(stream.first(min(_LOOKED_AT, len(known))).marks()):
            raise InputError(
                "the stream gives other images each time it is read, so none of them can be held out; pass "
                "validation_images."
            )
        return Feed(stream.without(held_out.marks()))
    if not config.enable_bucket or config.resolution is None:
        return Feed()
    if vae.layout != "image":
        raise InputError("enable_bucket is for images; leave it out.")
    if config.bucket_reso_steps % vae.factor:
        near = max(1, round(config.bucket_reso_steps / vae.factor)) * vae.factor
        raise InputError(
            f"bucket_reso_steps={config.bucket_reso_steps} does not divide by the VAE's factor {vae.factor}; "
            f"use {near}, for example."
        )
    buckets = make_buckets(
        config.resolution,
        steps=config.bucket_reso_steps,
        least=config.min_bucket_reso,
        most=config.max_bucket_reso,
    )
    return Feed(buckets=BucketedImages(training, buckets))


@torch.no_grad()
def check_shapes(
    feed: Feed, example: Tensor, transforms: Sequence[Transform], vae: Autoencoder, batch: int
) -> None:
    """`InputError` for a transform that turns some samples of a batch of no squares and others not.

    Args:
        feed: whose buckets are looked at, where it has some.
        example: else an image `(C, ..., H, W)`.
        transforms: that are drawn.
        vae: on which they are placed.
        batch: images in a batch.
    """
    sides = [tuple(example.shape[-2:])] if feed.buckets is None else list(feed.buckets.members)
    if batch < 2 or example.ndim != 3 or all(height == width for height, width in sides):
        return
    cells = torch.zeros(batch, vae.image_channels, vae.factor, 2 * vae.factor)
    for transform in transforms:
        if not transform.swaps_axes:
            continue
        placed = vae.place(transform)
        for seed in range(_TRIES):
            placed.draw(batch, torch.Generator().manual_seed(seed)).pixel(cells)
