"""Any item of any source as a tensor of one size: what is read, and what is refused."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageColor
from torch import Tensor

from equivae.data.buckets import Buckets
from equivae.data.formats import find_plugins, missing_plugin
from equivae.data.pictures import Colour, picture_to_tensor
from equivae.data.resizing import imagenet_crop, resize_and_crop
from equivae.data.unreadable import UnreadableImage, why
from equivae.errors import InputError

__all__ = ["IMAGE_KEYS", "Preparing", "Resize", "parse_colour", "sides_of"]

Resize = Literal["bicubic", "imagenet"]
IMAGE_KEYS = ("pixel_values", "image", "images", "img", "jpg", "jpeg", "png", "webp")
_VERSION = 2  # of what these steps do to a picture, for fingerprints


def parse_colour(background: str | tuple[int, int, int]) -> Colour:
    """8-bit RGB of a colour's name, `"#rrggbb"` or a tuple; `InputError` for anything else."""
    try:
        found = ImageColor.getrgb(background) if isinstance(background, str) else background
        red, green, blue = (int(value) for value in found)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"background={background!r} is not a colour; pass a name such as 'white', '#rrggbb' or three "
            "numbers from 0 to 255."
        ) from error
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise InputError(f"background={background!r} has values outside of 0 to 255.")
    return red, green, blue


@dataclass(frozen=True)
class Preparing:
    """How items become tensors `(channels, R, R)` in [-1, 1].

    Args:
        resolution: side after the resize and the centre crop, or buckets in its place, or `None`.
        channels: 3 or 1 (tensors may have another number).
        background: what shows through transparent pictures, 8-bit RGB.
        column: the key of the image in items that are dictionaries; found if `None`.
        resize: `"bicubic"`, or `"imagenet"` for `imagenet_crop`.
    """

    resolution: int | Buckets | None = None
    channels: int = 3
    background: Colour = (255, 255, 255)
    column: str | None = None
    resize: Resize = "bicubic"

    def __str__(self) -> str:
        """For fingerprints."""
        kind = "" if self.resize == "bicubic" else f" {self.resize}"
        return f"{_VERSION} {self.resolution} {self.channels} {self.background} {self.column}{kind}"

    def __call__(self, item: Any, name: str) -> Tensor:
        """The tensor of an item; `UnreadableImage` for a broken picture, `InputError` for other input."""
        item = self.find(item, name)
        if item is None:
            raise UnreadableImage.named(name, "it is missing (None)")
        if isinstance(item, (bytes, os.PathLike)):
            return self.decode(item, name)
        if isinstance(item, Image.Image):
            return self._picture(item, name)
        if isinstance(item, np.ndarray):
            item = _of_array(item, self.channels)
        elif isinstance(item, Tensor) and item.dtype == torch.uint8 and item.ndim in (2, 3):
            item = _of_array(item.cpu().numpy(), self.channels, planes_first=item.ndim == 3)
        if isinstance(item, Image.Image):
            return self._picture(item, name)
        return self._tensor(item, name)

    def decode(self, file: bytes | os.PathLike[str], name: str) -> Tensor:
        """The tensor of an encoded picture, from its bytes or its file."""
        find_plugins()
        try:
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else Path(file)) as image:
                return self._picture(image, name)
        except (UnreadableImage, MemoryError):
            raise
        except Exception as error:  # what a decoder raises for damaged data is not to be listed
            raise UnreadableImage.named(name, missing_plugin(name) or why(error)) from error

    def find(self, item: Any, name: str) -> Any:
        """The image in a dictionary or tuple."""
        if isinstance(item, dict) and not {"bytes", "path"} >= set(item):
            keys = [key for key in (self.column or "", *IMAGE_KEYS) if key in item]
            if not keys or (self.column and keys[0] != self.column):
                wanted = [self.column] if self.column else list(IMAGE_KEYS)
                raise InputError(
                    f"image {name} is a dictionary with {sorted(map(str, item))}; its image has to be "
                    f"under one of {wanted}."
                )
            item = item[keys[0]]
        elif isinstance(item, (tuple, list)) and item:
            item = item[0]
        if isinstance(item, dict) and item and {"bytes", "path"} >= set(item):
            encoded, path = item.get("bytes"), item.get("path")
            item = encoded if encoded is not None else Path(path) if path else None
        return item

    def _picture(self, image: Image.Image, name: str) -> Tensor:
        try:
            if self.resize == "imagenet" and isinstance(self.resolution, int):
                whole = picture_to_tensor(image, None, self.channels, self.background)
                return imagenet_crop(whole, self.resolution)
            return picture_to_tensor(image, self.resolution, self.channels, self.background)
        except MemoryError:
            raise
        except Exception as error:
            raise UnreadableImage.named(name, why(error).rstrip(".")) from error

    def _tensor(self, item: Any, name: str) -> Tensor:
        if not isinstance(item, Tensor):
            raise InputError(
                f"image {name} is of type {type(item).__name__}; expected a tensor (C, H, W) in [-1, 1], "
                "an array of bytes, a PIL image, a path, or a dictionary or tuple that holds one."
            )
        channels = self.channels
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
        if self.resolution is None:
            return image
        if image.ndim == 2:
            raise InputError(f"{name} is audio, which has no resolution; leave resolution out.")
        if self.resize == "imagenet" and isinstance(self.resolution, int):
            return imagenet_crop(image, self.resolution)
        return resize_and_crop(image, self.resolution)


def sides_of(file: bytes | os.PathLike[str]) -> tuple[int, int] | None:
    """Height and width of an encoded picture as it is shown, by its header; `None` where it has no such."""
    find_plugins()
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else Path(file)) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)
            width, height = image.size
    except Exception:  # what cannot be opened is told of when it is read
        return None
    return (width, height) if turned else (height, width)


def _of_array(array: np.ndarray, channels: int, planes_first: bool | None = None) -> Any:
    """8 bits become a picture, 16 bits and floats a tensor in [-1, 1]; channels may come first or last."""
    if array.ndim == 3 and array.dtype in (np.uint8, np.uint16) and array.size:
        if planes_first is None:
            planes_first = array.shape[0] in (1, 3, 4) and array.shape[-1] not in (1, 2, 3, 4)
        array = array.transpose(1, 2, 0) if planes_first else array
        if array.shape[-1] == 1:
            array = array[..., 0]
    if array.dtype.kind not in "biuf":
        return array
    pixels = np.ascontiguousarray(array)
    if array.size and (array.dtype == np.uint8 or (array.dtype == np.uint16 and array.ndim == 2)):
        if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (2, 3, 4)):
            return Image.fromarray(pixels)
        return torch.from_numpy(pixels)
    if array.dtype == np.uint16 and array.ndim == 3:
        deep = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 32767.5 - 1
        return deep.expand(channels, -1, -1) if len(deep) == 1 else deep
    return torch.from_numpy(pixels.astype(pixels.dtype.newbyteorder("=")))
