"""kohya's `.npz` files: `latents` beside `latents_flipped`, of which sd-scripts takes one by chance.

The loader flips `alpha_mask` and turns `crop_ltrb` by itself when it takes the flipped latents, so that both
stay as they are, once in a file. Layout: sd-scripts, library/strategy_base.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivae.caches.layout import CacheFormat, Job, Picture, State, Target
from equivae.caches.npz import Npz
from equivae.caches.space import LatentSpace
from equivae.caches.writing import replace_file, stamp, write_parts
from equivae.errors import InputError
from equivae.latent_scaling import LatentScaling

__all__ = ["Kohya"]

_NAME = re.compile(r"(?P<image>.+)_(?P<width>\d{4,})x(?P<height>\d{4,})_(?P<model>[a-z0-9]+)\.npz$")
_LATENTS = re.compile(r"latents(?P<size>_\d+x\d+)?\.npy$")
_MARK = "equivae"  # in the zip's comment, which sd-scripts drops when it writes the file anew

_SD = LatentScaling(0.18215)
_FLUX = LatentScaling(0.3611, 0.1159)
_QWEN_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_QWEN_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
_QWEN = LatentScaling(1.0, _QWEN_MEAN, _QWEN_STD)
# By the model in the name: its scaling, and whether sd-scripts scales what it caches. SD3's and
# HunyuanImage's latents are scaled when the training reads them.
_MODELS: dict[str, tuple[LatentScaling, bool]] = {
    "": (_SD, False),
    "sd": (_SD, False),
    "sdxl": (LatentScaling(0.13025), False),
    "sd3": (LatentScaling(1.5305, 0.0609), False),
    "hi": (LatentScaling(0.75289), False),
    "flux": (_FLUX, True),
    "lumina": (_FLUX, True),
    "anima": (_QWEN, True),
}
_FACTORS = {"hi": 32}  # pixels per cell; all the others have 8


class Kohya(CacheFormat):
    """`<image>_<width>x<height>_<model>.npz`, and the older `<image>.npz`."""

    name = "kohya"
    looks = "kohya's `<image>_1024x1024_sdxl.npz` with the array `latents`"
    moves = ("hflip",)

    def owns(self, path: Path) -> bool:
        if path.suffix != ".npz" or "_te_outputs" in path.stem:
            return False
        return bool(_sizes(Npz.look(path)))

    def read(self, path: Path, channels: int | None = None) -> list[Tensor]:
        file = Npz.read(path)
        return [_latents(file, size) for size in _sizes(file)]

    def state(self, path: Path, target: Target) -> State:
        file = Npz.look(path)
        ours, wanted = file.note(_MARK), [_flipped(size) for size in _sizes(file)]
        if any(name not in file.members for name in wanted):
            return State.MISSING
        made = {ours[name] for name in wanted if name in ours}
        if not made:
            return State.TOOL
        return State.DONE if made == {target.op.signature} else State.OTHER_OP

    def job(self, path: Path, target: Target) -> Job:
        before, signature = stamp(path), target.op.signature
        file = Npz.read(path)  # read once: half of the time is the disk's
        ours = file.note(_MARK)
        stale = [name for name, by in ours.items() if by != signature and name in file.members]
        if stale:
            file = file.without(stale)
        # What the tool encoded itself is an original.
        sizes = [size for size in _sizes(file) if _flipped(size) not in file.members]
        names = [_flipped(size) for size in sizes]
        noted = {name: by for name, by in ours.items() if name in file.members}
        comment = json.dumps({_MARK: {**noted, **dict.fromkeys(names, signature)}}).encode()

        def keep(moved: Sequence[Tensor]) -> int:
            added = {name: batch[0].numpy() for name, batch in zip(names, moved, strict=True)}
            # Every byte of the arrays that are there stays where it is.
            parts = file.adding(added, comment)
            replace_file(path, lambda to: write_parts(to, parts), unless=before)
            return len(added)

        return Job(path, [_latents(file, size) for size in sizes], keep)

    def space(self, path: Path) -> LatentSpace:
        known = _MODELS.get(_model(path))
        return LatentSpace() if known is None else LatentSpace(scaling=known[0])

    def scales(self, path: Path) -> bool | None:
        known = _MODELS.get(_model(path))
        return None if known is None else known[1]

    def factor(self, path: Path) -> int | None:
        file = Npz.read(path)
        crops = [size for size in _sizes(file) if f"crop_ltrb{size}.npy" in file.members]
        arrays = [
            [file.array(f"{n}{size}.npy") for n in ("latents", "crop_ltrb")] for size in crops
        ]
        found = {factor for pair in arrays if (factor := _factor(*pair)) is not None}
        if len(found) == 1:
            return found.pop()
        model = _model(path)
        return _FACTORS.get(model, 8) if model in _MODELS and model else None

    def picture(self, path: Path, images: dict[str, Path]) -> Picture | None:
        found = _NAME.match(path.name)
        image = images.get(found["image"] if found else path.stem)
        return None if image is None else Picture(image)


def _model(path: Path) -> str:
    found = _NAME.match(path.name)
    return found["model"] if found else ""


def _sizes(file: Npz) -> list[str]:
    """`""`, or `"_128x128"` and others: the suffixes of the latents in a file."""
    found = [_LATENTS.match(name) for name in file.members]
    return [match["size"] or "" for match in found if match is not None]


def _latents(file: Npz, size: str) -> Tensor:
    """A batch of one."""
    array = file.array(f"latents{size}.npy")
    if array.ndim not in (3, 4) or array.dtype.kind != "f" or not array.dtype.isnative:
        raise InputError(
            f"the array latents{size} of {file.path} has shape {array.shape} and type {array.dtype}; "
            "latents are floats (c, h, w)."
        )
    return torch.from_numpy(array)[None]


def _factor(latents: Any, crop: Any) -> int | None:
    """Pixels per cell, by sd-scripts' crop: the resized image inside the latents' pixels, filling one side.

    `None` for what is not a power of two: a crop that another program measured in other pixels.
    """
    left, top, right, bottom = crop.flatten().tolist() if crop.size == 4 else (0, 0, 0, 0)
    ratio = max((bottom - top) / latents.shape[-2], (right - left) / latents.shape[-1])
    factor = round(ratio)
    whole = factor > 0 and factor & (factor - 1) == 0 and abs(ratio - factor) < 0.05
    return factor if whole else None


def _flipped(size: str) -> str:
    return f"latents_flipped{size}.npy"
