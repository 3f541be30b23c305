"""Images from wherever they are: a tensor, a folder, `datasets`, the hub, a torch Dataset or DataLoader.

Every source becomes a map-style `ImageDataset` whose items are float32 tensors `(C, R, R)` in [-1, 1],
the short side resized to the resolution (bicubic, anti-aliased) and the centre cropped.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from equivae.data.base import Source
from equivae.data.draws import drawing
from equivae.data.folder import is_small, open_folder
from equivae.data.images import ImageDataset
from equivae.data.items import ItemSource, PreparedAgain
from equivae.data.names import display_name
from equivae.data.preparing import Preparing, Resize, parse_colour
from equivae.data.resizing import resize_and_crop
from equivae.data.shards import open_shards
from equivae.data.streaming import ImageStream
from equivae.data.tables import TableSource, choose_split, hub_rows, is_table, rows_of_path
from equivae.data.tensors import TensorSource
from equivae.data.verifying import find_unreadable
from equivae.errors import InputError

if TYPE_CHECKING:
    import datasets

__all__ = [
    "ImageDataset",
    "ImagesLike",
    "collate",
    "load_images",
    "load_stream",
    "resize_and_crop",
]

ImagesLike = Union[
    Tensor,
    str,
    Path,
    "datasets.Dataset",
    "datasets.DatasetDict",
    "datasets.IterableDataset",
    Dataset[Any],
    "DataLoader[Any]",
    Sequence[Any],
    Source,
]


def load_images(
    source: ImagesLike,
    *,
    resolution: int | None = None,
    channels: int = 3,
    image_column: str | None = None,
    split: str = "train",
    max_samples: int | None = None,
    background: str | tuple[int, int, int] = "white",
    verify: bool | None = None,
    progress: bool = True,
    resize: Resize = "bicubic",
    streaming: bool = False,
) -> ImageDataset:
    """An `ImageDataset` from any source.

    Args:
        source: a tensor `(N, C, H, W)` in [-1, 1], or one of videos `(N, C, T, H, W)` or of audio
            `(N, C, T)`; a folder (searched with its subfolders); a `datasets.Dataset` or `DatasetDict`, in
            memory, saved to disk, as parquet or arrow files, or the name of one on the hub; a torch
            `Dataset` or `DataLoader` (its dataset is taken) whose items are tensors `(C, H, W)` in [-1, 1]
            (or `(C, T, H, W)`, or `(C, T)`), 8-bit arrays, PIL images, paths, dictionaries with one of those
            under `pixel_values` or `image`, or tuples that begin with one; a list of those; a `Source`; or,
            with `max_samples`, a stream: a `datasets.IterableDataset` or webdataset shards (`.tar`), by file,
            folder, pattern or address.
        resolution: side of the images after resizing and the centre crop. `None` keeps every image as
            it is, which needs all of them to have one size.
        channels: 3 for colour, 1 for grey.
        image_column: the column of a `datasets.Dataset`, or the key of dictionaries, that holds the images;
            found if not named, and nothing to sources without any.
        split: the split of a dataset or of a folder with split folders; `"all"` takes every one.
        max_samples: take the first so many images only.
        background: the colour behind transparent pictures: a name, `"#rrggbb"`, or 8-bit RGB.
        verify: decode every picture at the start, in threads, and leave out what cannot be read (`True`);
            check nothing (`False`); by default decode up to 512 pictures or 256 MiB, and of more look at the
            headers.
        progress: show a bar when that takes longer than two seconds.
        resize: `"bicubic"`, anti-aliased; or `"imagenet"`, what torchvision's `Resize` and `CenterCrop` make
            of a tensor: bilinear, anti-aliased.
        streaming: read parquet files or a data set of the hub from the start up to `max_samples`, instead of
            as a whole; `.tar` shards are always read so.

    Raises `InputError` when there is no image, with the reason. Warns when images lie in [0, 1].

    ```python
    import torch

    import equivae

    images = equivae.data.load_images(torch.rand(5, 3, 80, 64) * 2 - 1, resolution=32)
    assert images[0].shape == (3, 32, 32)
    ```
    """
    for name, value in (("resolution", resolution), ("max_samples", max_samples)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}.")
    preparing = Preparing(resolution, channels, parse_colour(background), image_column, resize)
    if isinstance(source, DataLoader):
        source = source.dataset
    shards = open_shards(source, split=split, streaming=streaming, column=image_column)
    if shards is not None:
        if max_samples is None:
            raise InputError(
                "the images are a stream, whose end is not known; say with max_samples how many of them are "
                "taken into memory."
            )
        return ImageStream(shards, preparing).first(max_samples)
    rows = _rows(source, split)
    if isinstance(rows, Path):
        dataset = open_folder(
            rows, preparing, split=split, enough=max_samples, verify=verify, progress=progress
        )
    elif isinstance(rows, (ImageDataset, Source)):
        rows = ImageDataset(rows) if isinstance(rows, Source) else rows
        again = PreparedAgain(rows, preparing)
        dataset = ImageDataset(again, skipped=rows.skipped, left_out=rows.left_out)
    else:
        dataset = _of_rows(rows, preparing, max_samples, verify, progress)
    if len(dataset) == 0:
        raise InputError("the image source is empty; at least one image is needed.")
    if max_samples is not None and max_samples < len(dataset):
        dataset = dataset.subset(range(max_samples))
    return dataset


def load_stream(
    source: ImagesLike,
    *,
    resolution: int | None = None,
    channels: int = 3,
    image_column: str | None = None,
    split: str = "train",
    background: str | tuple[int, int, int] = "white",
    resize: Resize = "bicubic",
    streaming: bool = False,
    shuffle_buffer: int = 1000,
    seed: int = 0,
) -> ImageStream | None:
    """An `ImageStream` from what streams, `None` for any other source; arguments as those of `load_images`.

    Args of its own:
        shuffle_buffer: images that are shuffled together.
        seed: of the shuffling.
    """
    shards = open_shards(source, split=split, streaming=streaming, column=image_column)
    if shards is None:
        return None
    preparing = Preparing(resolution, channels, parse_colour(background), image_column, resize)
    return ImageStream(shards, preparing, shuffle_buffer=shuffle_buffer, seed=seed)


def collate(items: Sequence[Any]) -> Any:
    """A batch of images, or of dictionaries with images; `InputError` if their sizes differ."""
    if isinstance(items[0], dict):
        return {key: collate([item[key] for item in items]) for key in items[0]}
    shapes = list(dict.fromkeys(tuple(item.shape) for item in items))
    if len(shapes) > 1:
        raise InputError(
            f"the images have different sizes, {shapes[0]} and {shapes[1]}; pass "
            "resolution=256, or another one, to which they are resized and cropped."
        )
    return torch.stack(list(items))


def _rows(source: Any, split: str) -> Any:
    """A folder's path as it is; otherwise what gives items by position."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.exists():
            if isinstance(source, str):
                return hub_rows(source, split)
            raise InputError(
                f"image folder {display_name(path)} does not exist; pass a folder that holds images."
            )
        found = rows_of_path(path, split)
        if found is None and not path.is_dir():
            raise InputError(
                f"image folder {display_name(path)} is a file; pass a folder that holds images."
            )
        return path if found is None else found
    if isinstance(source, Mapping):
        source = choose_split(source, split)
    elif split not in ("train", "all", str(getattr(source, "split", None))):
        raise InputError(
            f"split={split!r} is for folders and data sets with splits; {type(source).__name__} has none."
        )
    if isinstance(source, Source):
        return source
    if isinstance(source, IterableDataset) or not (
        hasattr(source, "__len__") and hasattr(source, "__getitem__")
    ):
        raise InputError(
            f"{type(source).__name__} cannot be read by position; pass a map-style dataset (with "
            "`__len__` and `__getitem__`), a folder or a tensor, or wrap it in a datasets.IterableDataset, "
            "which streams."
        )
    return source


def _of_rows(
    rows: Any, preparing: Preparing, enough: int | None, verify: bool | None, progress: bool
) -> ImageDataset:
    if enough is not None and is_table(rows) and hasattr(rows, "select"):
        rows = rows.select(range(min(enough, len(rows))))
    source = _source(rows, preparing)
    _warn_of_range(source)
    if verify is None:
        verify = isinstance(source, TableSource) and is_small(len(source), source.size())
    if not verify or isinstance(source, TensorSource):
        return ImageDataset(source)
    keys = [None] * len(source)
    broken = find_unreadable(_Seeded(source), keys, threads=False, progress=progress)
    skipped = [(source.names[i], reason) for i, reason in broken.items()]
    if skipped and len(skipped) == len(source):
        raise InputError(
            f"none of the {len(source)} images can be read; the first is {skipped[0][0]}: {skipped[0][1]}."
        )
    good = [i for i in range(len(source)) if i not in broken]
    return ImageDataset(source, good, skipped=skipped)


class _Seeded:
    """Reads without a trace in the global random state."""

    def __init__(self, source: TensorSource | ItemSource) -> None:
        self._source = source

    def __call__(self, index: int) -> Tensor:
        with drawing(0, index):
            return self._source.read(index)


def _source(rows: Any, preparing: Preparing) -> TensorSource | ItemSource:
    if isinstance(rows, Tensor) and rows.dtype != torch.uint8:
        return TensorSource(rows, preparing)
    return TableSource(rows, preparing) if is_table(rows) else ItemSource(rows, preparing)


def _warn_of_range(source: TensorSource | ItemSource) -> None:
    """Say so when all of some images lie in [0, 1]: black would be taken for grey."""
    lows, highs = [], []
    for index in range(min(len(source), 4)):
        try:
            with drawing(0, index):
                item = source.raw(index)
        except Exception:  # what cannot be read is named when it is its turn
            continue
        if isinstance(item, np.ndarray) and item.dtype.kind == "f":
            item = torch.from_numpy(item)
        if isinstance(item, Tensor) and item.is_floating_point() and item.numel():
            lows.append(float(item.min()))
            highs.append(float(item.max()))
    if lows and min(lows) >= 0 and 0.5 < max(highs) <= 1:
        warnings.warn(
            f"the images have values from {min(lows):.3g} to {max(highs):.3g}; expected [-1, 1], where 0 is "
            "mid-grey. If they are in [0, 1], pass images * 2 - 1.",
            stacklevel=4,
        )
