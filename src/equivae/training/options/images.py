"""Which images a fine-tune learns from and is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import ImageColor

from equivae.errors import InputError
from equivae.options import SIDE, Options, at_least, option, quoted, within

__all__ = ["ImageOptions", "check_colour"]


def check_colour(name: str, value: str) -> None:
    """`InputError` unless Pillow knows the colour."""
    try:
        ImageColor.getrgb(value)
    except ValueError as error:
        raise InputError(
            f"{name}={quoted(value)} is not a colour; pass a name such as 'white' or '#rrggbb'."
        ) from error


@dataclass(frozen=True)
class ImageOptions(Options):
    """Which images, how they are read and cut, and which of them are held out."""

    resolution: int | None = option(
        None,
        "Resize and centre-crop images to this side in pixels.",
        range=SIDE,
    )
    crop_size: int | None = option(
        None,
        "Train on random crops of this side, in pixels, of the images at that resolution.",
        range=SIDE,
    )
    enable_bucket: bool = option(
        False,
        "Train on whole pictures of many shapes, in batches of one shape, instead of on their centre square: "
        "areas of about resolution squared.",
    )
    bucket_reso_steps: int = option(
        64, "The sides of the buckets are multiples of this.", range=at_least(1, 2**16)
    )
    min_bucket_reso: int | None = option(
        None, "The smallest side of a bucket; half of the resolution unless given.", range=SIDE
    )
    max_bucket_reso: int | None = option(
        None, "The largest side of a bucket; twice the resolution unless given.", range=SIDE
    )
    random_flip: bool = option(False, "Mirror each image with probability 1/2.")
    image_column: str | None = option(
        None, "The column of a data set that holds the images; found unless given."
    )
    split: str = option("train", "The split of a data set.")
    max_train_samples: int | None = option(None, "Use only the first N images.", range=at_least(1))
    streaming: bool = option(
        False,
        "Read parquet shards, or a data set of the hub, as a stream; .tar shards always are one.",
    )
    shuffle_buffer: int = option(
        1000, "Images of a stream that are shuffled together.", range=at_least(1)
    )
    stream_head: int = option(
        256,
        "First images of a stream that are kept in memory, for what needs a set: those held out, the "
        "bottleneck stage, a fit, the scaling factor.",
        range=at_least(2),
    )
    background: str = option(
        "white", "The colour behind transparent pixels, as Pillow names it.", check=check_colour
    )
    validation_split: float = option(
        0.1,
        "Share of the images held out for validation.",
        range=within(0, 1, open_high=True),
    )
    max_eval_samples: int = option(
        64, "Held-out images measured before and after, at most.", range=at_least(1), free=True
    )
    dataloader_num_workers: int = option(
        0, "Processes that read images.", range=at_least(0, 1024), free=True
    )

    def reading(self) -> dict[str, Any]:
        """What `load_images` is told of how images are found and read; what was not asked for is left out."""
        usual = ImageOptions()
        names = ("image_column", "split", "background", "streaming")
        asked = {name: getattr(self, name) for name in names}
        asked = {name: value for name, value in asked.items() if value != getattr(usual, name)}
        return {"resolution": self.resolution, **asked}

    def check(self) -> None:
        if self.enable_bucket and self.resolution is None:
            raise InputError(
                "enable_bucket needs a resolution, of whose square the buckets have about the area."
            )
        if self.enable_bucket and self.crop_size is not None:
            raise InputError(
                "crop_size cuts squares from the images, enable_bucket keeps their shapes; leave one of them "
                "out."
            )
