"""A picture of Pillow's as a tensor: upright, on a background, with its shades, resized and cropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import ExifTags, Image
from torch import Tensor

from equivae.data.buckets import Buckets
from equivae.data.unreadable import UnreadableImage

__all__ = ["picture_to_tensor", "target_of", "target_size"]

Colour = tuple[int, int, int]

# Above so many pixels the resized whole is never made: only what the crop keeps is resized.
WHOLE_PIXELS = 2**24
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIXTEEN_BITS = ("PNG", "PPM", "JPEG2000")  # whose mode "I" is 16 bits, not a guess


def picture_to_tensor(
    image: Image.Image, resolution: int | Buckets | None, channels: int, background: Colour
) -> Tensor:
    """A float32 tensor `(channels, H, W)` in [-1, 1]; `UnreadableImage` for a mode that has no shades here.

    Args:
        image: of any mode of Pillow's; 16-bit and float ones keep all their shades.
        resolution: side of the centre crop after the resize, or buckets, of which it gets the one nearest to
            its shape, or `None` to keep the size.
        channels: 3 or 1.
        background: what shows through where the picture is transparent, as 8-bit RGB.
    """
    clear = _transparent_value(image)
    image.load()
    upright = _upright(image)
    if clear != image.info.get("transparency"):
        upright = upright if upright is not image else image.copy()
        upright.info["transparency"] = clear
    if image.mode.startswith("I") or image.mode == "F":
        planes = _deep_planes(upright, image.format, channels, background)
        fitted_planes = [np.asarray(_fit(plane, resolution)) for plane in planes]
        array = np.stack(fitted_planes, -1).clip(0, 255)
        if array.shape[-1] != channels:
            array = np.repeat(array, channels, -1)
    else:
        flat = _flat(upright, background)
        fitted = _fit(flat.convert("L" if channels == 1 else "RGB"), resolution)
        array = np.array(fitted, dtype=np.float32)
        array = array if array.ndim == 3 else array[..., None]
    tensor = torch.from_numpy(array)
    return rearrange(tensor, "h w c -> c h w").div(127.5).sub(1).contiguous()


def target_of(height: int, width: int, resolution: int | Buckets) -> tuple[int, int]:
    """What a picture is cropped to: height and width."""
    if isinstance(resolution, Buckets):
        return resolution.of(height, width)
    return resolution, resolution


def target_size(size: Sequence[int], target: Sequence[int]) -> tuple[int, int]:
    """Both sides after the resize, just so large that the target can be cut from them."""
    scale = max(wanted / side for side, wanted in zip(size, target, strict=True))
    first, second = (
        max(wanted, round(side * scale)) for side, wanted in zip(size, target, strict=True)
    )
    return first, second


def _transparent_value(image: Image.Image) -> object:
    """The transparent grey or colour in 8 bits, as the pixels are; Pillow leaves it in the depth of a PNG."""
    clear, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    if image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:
        return tuple(value >> 8 for value in clear)
    if image.mode == "L" and isinstance(clear, int) and tiles:
        return clear * {"L;2": 85, "L;4": 17}.get(str(tiles[0][3]), 1)
    return clear


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # malformed EXIF says nothing of the orientation; the pixels are whole
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _flat(image: Image.Image, background: Colour) -> Image.Image:
    """Without transparency, and of a mode that converts to RGB and L."""
    if image.mode == "LAB":
        raise UnreadableImage("it is in CIELAB (mode LAB); convert it to RGB")
    palette = image.palette if image.mode == "P" else None
    clear = image.info.get("transparency")
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    elif not (
        image.mode in ("LA", "PA", "RGBA")
        or clear is not None
        or (palette is not None and palette.mode.endswith("A"))
    ):
        return image
    over = image.convert("RGBA")
    under = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(under, over).convert("RGB")


def _deep_planes(
    image: Image.Image, kind: str | None, channels: int, background: Colour
) -> list[Image.Image]:
    """A grey picture of more than 8 bits as mode "F" in [0, 255]; three when its background has a colour."""
    kind_of_number: Any = np.float32 if image.mode == "F" else np.int64
    values: Any = np.asarray(image).astype(kind_of_number)
    shades = (values * _unit(values, image.mode, kind)).astype(np.float32)
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return [Image.fromarray(shades)]
    colours: Sequence[float] = background if channels == 3 else (_luma(background),)
    return [Image.fromarray(np.where(values == clear, np.float32(c), shades)) for c in colours]


def _unit(values: np.ndarray, mode: str, kind: str | None) -> float:
    """What values are multiplied with to lie in [0, 255]."""
    low, high = float(values.min()), float(values.max())
    if mode == "F":
        if not (low >= 0 and high <= 1):  # NaN as well
            raise UnreadableImage(
                f"it holds floats (mode F) from {low:.3g} to {high:.3g}; expected [0, 1]"
            )
        return 255.0
    if mode == "I" and not (
        low >= 0 and high <= 65535 and (high > 255 or high == 0 or kind in _SIXTEEN_BITS)
    ):
        raise UnreadableImage(
            f"it holds 32-bit numbers (mode I) from {low:.0f} to {high:.0f}, of which white is not known; "
            "save it with 8 or 16 bits"
        )
    return 1 / 257


def _luma(colour: Colour) -> float:
    return float(np.dot(colour, (0.299, 0.587, 0.114)))


def _fit(image: Image.Image, resolution: int | Buckets | None) -> Image.Image:
    """Resized to cover the target (bicubic, anti-aliased), the centre cropped."""
    if resolution is None:
        return image
    rows, columns = target_of(image.height, image.width, resolution)
    width, height = target_size(image.size, (columns, rows))
    left, top = (width - columns) // 2, (height - rows) // 2
    if width * height > WHOLE_PIXELS:
        across, down = image.width / width, image.height / height
        right = min(image.width, (left + columns) * across)
        bottom = min(image.height, (top + rows) * down)
        box = (left * across, top * down, right, bottom)
        return image.resize((columns, rows), Image.Resampling.BICUBIC, box=box)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + columns, top + rows))
