"""Images from wherever they are: a tensor, a folder, `datasets`, the hub, a torch Dataset or DataLoader.

Every source becomes a map-style `ImageDataset` whose items are float32 tensors `(C, R, R)` in [-1, 1],
the short side resized to the resolution (bicubic, anti-aliased) and the centre cropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from equivae.autoencoder import check_images
from equivae.errors import InputError

if TYPE_CHECKING:
    import datasets

__all__ = ["ImageDataset", "ImagesLike", "collate", "load_images", "resize_and_crop"]

ImagesLike = Union[
    Tensor, str, Path, "datasets.Dataset", Dataset[Any], "DataLoader[Any]", Sequence[Any]
]

_SUFFIXES = frozenset(Image.registered_extensions())
_IMAGE_KEYS = ("pixel_values", "image", "images", "img", "jpg", "png")


class ImageDataset(Dataset[Tensor]):
    """Images of one size from any source, a map-style dataset.

    Attributes:
        names: what each image is called in reports: its file name, or its position.
        skipped: `(name, reason)` of every image that could not be read and was left out.

    Items are float32 tensors `(C, R, R)` in [-1, 1]. Made by `load_images`.
    """

    def __init__(
        self,
        read: Callable[[int], Tensor],
        names: Sequence[str],
        skipped: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._read = read
        self.names = list(names)
        self.skipped = list(skipped)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is outside a set of {len(self)} images")
        image = self._read(index % len(self))
        if not torch.isfinite(image).all():
            raise InputError(f"image {self.names[index]} holds NaN or infinite values.")
        return image

    def fingerprint(self) -> str:
        """Tells this set from another."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()[:16]

    def subset(self, indices: Sequence[int]) -> ImageDataset:
        """Some of the images, in the order given."""
        chosen = list(indices)
        return ImageDataset(
            lambda i: self._read(chosen[i]), [self.names[i] for i in chosen], self.skipped
        )

    def split(self, fraction: float, seed: int) -> tuple[ImageDataset, ImageDataset]:
        """The set without, and with, a random share of it: training and validation images."""
        if not 0.0 <= fraction < 1.0:
            raise InputError(f"validation_split must lie in [0, 1), got {fraction}.")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).tolist()
        held_out = round(len(self) * fraction)
        if fraction > 0:
            held_out = min(max(held_out, 1), len(self) - 1)
        return self.subset(sorted(order[held_out:])), self.subset(sorted(order[:held_out]))


def load_images(
    source: ImagesLike,
    *,
    resolution: int | None = None,
    channels: int = 3,
    image_column: str | None = None,
    split: str = "train",
    max_samples: int | None = None,
) -> ImageDataset:
    """An `ImageDataset` from any source.

    Args:
        source: a tensor `(N, C, H, W)` in [-1, 1], or one of videos `(N, C, T, H, W)` or of audio
            `(N, C, T)`; a folder (searched with its subfolders); a `datasets.Dataset`; a hub dataset
            name; a torch `Dataset` or `DataLoader` (its dataset is taken) whose items are tensors
            `(C, H, W)` in [-1, 1] (or `(C, T, H, W)`, or `(C, T)`), PIL images, dictionaries with one
            of those under `pixel_values` or `image`, or tuples that begin with one; or a list of those.
        resolution: side of the images after resizing and the centre crop. `None` keeps every image as
            it is, which needs all of them to have one size.
        channels: 3 for colour, 1 for grey.
        image_column: the column of a `datasets.Dataset` that holds the images; found if not named.
        split: the split of a hub dataset.
        max_samples: take the first so many images only.

    Raises `InputError` when there is no image, with the reason.

    ```python
    import torch

    import equivae

    images = equivae.data.load_images(torch.rand(5, 3, 80, 64) * 2 - 1, resolution=32)
    assert images[0].shape == (3, 32, 32)
    ```
    """
    if resolution is not None and resolution < 1:
        raise InputError(f"resolution must be at least 1, got {resolution}.")
    if isinstance(source, ImageDataset):
        dataset = ImageDataset(
            lambda i: _prepare(source[i], resolution, channels, source.names[i]),
            source.names,
            source.skipped,
        )
    elif isinstance(source, Tensor):
        dataset = _from_tensor(source, resolution, channels)
    elif isinstance(source, (str, Path)) and (Path(source).exists() or isinstance(source, Path)):
        dataset = _from_folder(Path(source), resolution, channels)
    elif isinstance(source, str):
        dataset = _from_items(_hub_dataset(source, split), resolution, channels, image_column)
    elif isinstance(source, DataLoader):
        return load_images(
            source.dataset,
            resolution=resolution,
            channels=channels,
            image_column=image_column,
            max_samples=max_samples,
        )
    elif isinstance(source, IterableDataset) or not (
        hasattr(source, "__len__") and hasattr(source, "__getitem__")
    ):
        raise InputError(
            f"{type(source).__name__} cannot be read by position; pass a map-style dataset (with "
            "`__len__` and `__getitem__`), a folder or a tensor."
        )
    else:
        dataset = _from_items(source, resolution, channels, image_column)
    if len(dataset) == 0:
        raise InputError("the image source is empty; at least one image is needed.")
    if max_samples is not None and max_samples < len(dataset):
        if max_samples < 1:
            raise InputError(f"max_samples must be at least 1, got {max_samples}.")
        dataset = dataset.subset(range(max_samples))
    return dataset


def collate(items: Sequence[Any]) -> Any:
    """A batch of images, or of dictionaries with images; `InputError` if their sizes differ."""
    if isinstance(items[0], dict):
        return {key: collate([item[key] for item in items]) for key in items[0]}
    shapes = list(dict.fromkeys(tuple(item.shape) for item in items))
    if len(shapes) > 1:
        raise InputError(
            f"the images have different sizes, {shapes[0]} and {shapes[1]}; pass a resolution, to which "
            "they are resized and cropped."
        )
    return torch.stack(list(items))


def resize_and_crop(image: Tensor, resolution: int) -> Tensor:
    """Resize the short side of `(C, H, W)` to `resolution` (bicubic, anti-aliased), crop the centre.

    Of a video `(C, T, H, W)` every frame.
    """
    if image.ndim == 4:
        return torch.stack([resize_and_crop(frame, resolution) for frame in image.unbind(1)], 1)
    height, width = image.shape[-2:]
    scale = resolution / min(height, width)
    if scale != 1.0:
        size = [max(resolution, round(side * scale)) for side in (height, width)]
        image = F.interpolate(image[None], size, mode="bicubic", antialias=True)[0].clamp(-1, 1)
    top, left = ((side - resolution) // 2 for side in image.shape[-2:])
    return image[:, top : top + resolution, left : left + resolution]


def _prepare(item: Any, resolution: int | None, channels: int, name: str) -> Tensor:
    """Any item of any source as a tensor `(C, R, R)` in [-1, 1]."""
    if isinstance(item, dict):
        keys = [key for key in _IMAGE_KEYS if key in item]
        if not keys:
            raise InputError(
                f"image {name} is a dictionary with {sorted(map(str, item))}; its image has to be "
                f"under one of {list(_IMAGE_KEYS)}."
            )
        item = item[keys[0]]
    elif isinstance(item, (tuple, list)) and item:
        item = item[0]
    if isinstance(item, Image.Image):
        return _from_pil(item, resolution, channels)
    if isinstance(item, np.ndarray) and item.dtype == np.uint8:
        return _from_pil(Image.fromarray(item), resolution, channels)
    if not isinstance(item, Tensor):
        raise InputError(
            f"image {name} is of type {type(item).__name__}; expected a tensor (C, H, W) in [-1, 1], a "
            "PIL image, or a dictionary or tuple that holds one."
        )
    if item.ndim not in (2, 3, 4) or item.shape[0] != channels or item.numel() == 0:
        raise InputError(
            f"image {name} has shape {tuple(item.shape)}, expected ({channels}, H, W), for a video "
            f"({channels}, T, H, W), for audio ({channels}, T)."
        )
    if not item.is_floating_point():
        raise InputError(
            f"image {name} is {item.dtype}, expected floats in [-1, 1]; for bytes use "
            "image.float().div(127.5).sub(1)."
        )
    low, high = float(item.min()), float(item.max())
    if low < -1.05 or high > 1.05:
        raise InputError(
            f"image {name} has values from {low:.3g} to {high:.3g}, expected [-1, 1]; for [0, 255] "
            "use image.float().div(127.5).sub(1)."
        )
    image = item.float()
    if resolution is None:
        return image
    if image.ndim == 2:
        raise InputError(f"{name} is audio, which has no resolution; leave resolution out.")
    return resize_and_crop(image, resolution)


def _from_pil(image: Image.Image, resolution: int | None, channels: int) -> Tensor:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # Pillow would cut the shades off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if resolution is not None:
        scale = resolution / min(image.size)
        size = (
            max(resolution, round(image.width * scale)),
            max(resolution, round(image.height * scale)),
        )
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
        image = image.crop((left, top, left + resolution, top + resolution))
    array = np.array(image, dtype=np.float32)
    tensor = torch.from_numpy(array if array.ndim == 3 else array[..., None])
    return rearrange(tensor, "h w c -> c h w").div(127.5).sub(1).contiguous()


def _from_tensor(images: Tensor, resolution: int | None, channels: int) -> ImageDataset:
    check_images(images)
    if images.ndim == 3 and images.shape[1] != channels:
        raise InputError(
            f"images must be a tensor (N, {channels}, H, W), or audio (N, {channels}, T); got "
            f"{tuple(images.shape)}."
        )
    return ImageDataset(
        lambda i: _prepare(images[i], resolution, channels, f"#{i}"),
        [f"#{i}" for i in range(len(images))],
    )


def _from_folder(folder: Path, resolution: int | None, channels: int) -> ImageDataset:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"image folder {folder} {what}; pass a folder that holds images.")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    if not paths:
        raise InputError(
            f"image folder {folder} holds no image file; known kinds are PNG, JPEG, WebP, BMP, TIFF "
            "and whatever else Pillow reads."
        )
    good: list[Path] = []
    skipped: list[tuple[str, str]] = []
    for path in paths:
        reason = _unreadable(path)
        if reason is None:
            good.append(path)
        else:
            skipped.append((path.relative_to(folder).as_posix(), reason))
    if not good:
        name, reason = skipped[0]
        raise InputError(
            f"none of the {len(paths)} images in {folder} can be read; the first is {name}: {reason}."
        )

    def read(index: int) -> Tensor:
        with Image.open(good[index]) as image:
            return _from_pil(image, resolution, channels)

    return ImageDataset(read, [p.relative_to(folder).as_posix() for p in good], skipped)


def _unreadable(path: Path) -> str | None:
    """Why an image cannot be decoded, or `None`. Decodes it: a cut-off file has a healthy header."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (32, 32))  # JPEG: the cheapest full decode
            image.load()
    except UnidentifiedImageError:
        return "not an image that Pillow knows"
    except Exception as error:
        return str(error) or type(error).__name__
    return None


def _hub_dataset(name: str, split: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, split=split)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{name!r} is neither a folder here nor a dataset that the hub gave: {reason}"
        ) from error


def _from_items(
    source: Any, resolution: int | None, channels: int, image_column: str | None
) -> ImageDataset:
    columns = getattr(source, "column_names", None)
    if columns is not None:
        column = _image_column(source, columns, image_column)

        def item(index: int) -> Any:
            return source[index][column]

    else:

        def item(index: int) -> Any:
            return source[index]

    return ImageDataset(
        lambda i: _prepare(item(i), resolution, channels, f"#{i}"),
        [f"#{i}" for i in range(len(source))],
    )


def _image_column(source: Any, columns: Sequence[str], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in columns:
            raise InputError(f"the dataset has no column {wanted!r}; it has {list(columns)}.")
        return wanted
    import datasets

    features = getattr(source, "features", None) or {}
    for name, feature in features.items():
        if isinstance(feature, datasets.Image):
            return str(name)
    for name in _IMAGE_KEYS:
        if name in columns:
            return name
    raise InputError(
        f"the dataset has columns {list(columns)}, none of them of images; name it with image_column."
    )
