"""kohya's `.npz` files: `latents` beside `latents_flipped`, of which sd-scripts takes one by chance.

The loader flips `alpha_mask` and turns `crop_ltrb` by itself when it takes the flipped latents, so that both
stay as they are, once in a file. Layout: sd-scripts, library/strategy_base.py.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equivae.autoencoder.latent_scaling import LatentScaling
from equivae.caches.layout import CacheFormat, Picture, State, Target, moved
from equivae.caches.space import LatentSpace
from equivae.caches.writing import replace_file, stamp
from equivae.errors import InputError, first_line

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


class Kohya(CacheFormat):
    """`<image>_<width>x<height>_<model>.npz`, and the older `<image>.npz`."""

    name = "kohya"
    looks = "kohya's `<image>_1024x1024_sdxl.npz` with the array `latents`"
    moves = ("hflip",)

    def owns(self, path: Path) -> bool:
        if path.suffix != ".npz" or "_te_outputs" in path.stem:
            return False
        with _opened(path) as archive:
            return bool(_sizes(archive))

    def read(self, path: Path, channels: int | None = None) -> list[Tensor]:
        with _opened(path) as archive:
            return [torch.from_numpy(array)[None] for _, array in _latents(path, archive)]

    def state(self, path: Path, target: Target) -> State:
        with _opened(path) as archive:
            wanted = {_flipped(size) for size in _sizes(archive)}
            present, ours = set(archive.namelist()), _ours(archive)
        if wanted - present:
            return State.MISSING
        if not wanted & set(ours):
            return State.TOOL
        signature = target.op.signature
        return (
            State.DONE
            if all(ours.get(n, signature) == signature for n in wanted)
            else State.OTHER_OP
        )

    def write(self, path: Path, target: Target) -> int:
        before, signature = stamp(path), target.op.signature
        file = io.BytesIO(path.read_bytes())  # read once: half of the time is the disk's
        with _opened(path, file) as archive:
            ours, present = _ours(archive), set(archive.namelist())
            stale = {name for name, by in ours.items() if by != signature}
            kept = present - stale  # what the tool encoded itself is an original
            added = {}
            for size, array in _latents(path, archive):
                if _flipped(size) not in kept:
                    (batch,) = moved(target.op, torch.from_numpy(array)[None], path)
                    added[_flipped(size)] = batch[0].numpy()
            if stale:
                file = _without(archive, stale)
        comment = {n: by for n, by in ours.items() if n in kept} | dict.fromkeys(added, signature)
        # Appending leaves every byte of the arrays that are there where it is.
        with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
            for name, array in added.items():
                archive.writestr(name, _npy(array))
            archive.comment = json.dumps({_MARK: comment}).encode()
        replace_file(path, lambda to: _write(to, file.getbuffer()), unless=before)
        return len(added)

    def space(self, path: Path) -> LatentSpace:
        known = _MODELS.get(_model(path))
        return LatentSpace() if known is None else LatentSpace(scaling=known[0])

    def scales(self, path: Path) -> bool | None:
        known = _MODELS.get(_model(path))
        return None if known is None else known[1]

    def picture(self, path: Path, images: dict[str, Path]) -> Picture | None:
        found = _NAME.match(path.name)
        image = images.get(found["image"] if found else path.stem)
        return None if image is None else Picture(image)


def _model(path: Path) -> str:
    found = _NAME.match(path.name)
    return found["model"] if found else ""


def _opened(path: Path, content: io.BytesIO | None = None) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path if content is None else content)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            f"{path} is no whole .npz file ({first_line(error)}): it is damaged, or being written; remove "
            "it or "
            "wait for the tool that writes it."
        ) from error


def _sizes(archive: zipfile.ZipFile) -> list[str]:
    """`""`, or `"_128x128"` and others: the suffixes of the latents in a file."""
    found = [_LATENTS.match(name) for name in archive.namelist()]
    return [match["size"] or "" for match in found if match is not None]


def _latents(path: Path, archive: zipfile.ZipFile) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for size in _sizes(archive):
        try:
            data = io.BytesIO(archive.read(f"latents{size}.npy"))
        except zipfile.BadZipFile as error:
            raise InputError(
                f"{path} is damaged ({first_line(error)}); let sd-scripts cache it anew."
            ) from error
        array = np.lib.format.read_array(data, allow_pickle=False)
        if array.ndim not in (3, 4) or array.dtype.kind != "f":
            raise InputError(
                f"the array latents{size} of {path} has shape {array.shape} and type {array.dtype}; "
                "latents are floats (c, h, w)."
            )
        yield size, array


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _flipped(size: str) -> str:
    return f"latents_flipped{size}.npy"


def _ours(archive: zipfile.ZipFile) -> dict[str, str]:
    """The arrays that were added here, with the signatures of their ops."""
    try:
        noted = json.loads(archive.comment or b"{}").get(_MARK, {})
    except (ValueError, AttributeError):
        return {}
    return {str(name): str(by) for name, by in noted.items()}


def _without(archive: zipfile.ZipFile, names: set[str]) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as copy:
        for item in archive.infolist():
            if item.filename not in names:
                copy.writestr(item, archive.read(item))
    return file


def _write(path: Path, content: memoryview) -> None:
    path.write_bytes(content)
