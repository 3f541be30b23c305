"""The pictures of a folder."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image
from torch import Tensor

from equivae.data.base import Source, digest
from equivae.data.formats import find_plugins, missing_plugin
from equivae.data.images import ImageDataset
from equivae.data.names import display_name
from equivae.data.preparing import Preparing, sides_of
from equivae.data.scan import Found, scan_folder
from equivae.data.unreadable import UnreadableImage, why
from equivae.data.verifying import find_unreadable
from equivae.errors import InputError

__all__ = ["FolderSource", "is_small", "open_folder"]

# Sets up to here are decoded when they are opened; of larger ones the headers are read.
SMALL, SMALL_BYTES = 512, 256 * 2**20
_BLOCK = 2**20
_HEAD = 4096  # bytes of a file that its mark is made of, beside its size


class FolderSource(Source):
    """Picture files below a root, decoded when it is their turn."""

    def __init__(self, root: Path, files: Sequence[Found], preparing: Preparing) -> None:
        self._root, self._files, self._preparing = root.absolute(), list(files), preparing
        self.names = [display_name(found.path) for found in files]

    def read(self, index: int) -> Tensor:
        return self._preparing.decode(self._root / self._files[index].path, self.names[index])

    def check_header(self, index: int) -> None:
        """Raise `UnreadableImage` for a file that does not begin as a picture does."""
        find_plugins()
        name = self.names[index]
        try:
            with Image.open(self._root / self._files[index].path):
                pass
        except Exception as error:
            raise UnreadableImage.named(name, missing_plugin(name) or why(error)) from error

    def sides(self, index: int) -> tuple[int, int] | None:
        return sides_of(self._root / self._files[index].path)

    def size(self, count: int) -> int:
        """Bytes of the first so many files."""
        return sum(found.size for found in self._files[:count])

    def about(self) -> str:
        return f"folder {replace(self._preparing, column=None)}"

    def marks(self) -> list[str]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self._mark, self._files))

    def _mark(self, found: Found) -> str:
        try:
            with (self._root / found.path).open("rb") as file:
                return f"{found.size} {zlib.crc32(file.read(_HEAD)):08x}"
        except OSError:
            return f"{found.size} gone"

    def content(self, index: int) -> str:
        """Of the whole file, which is read and not decoded."""
        path = self._root / self._files[index].path
        try:
            with path.open("rb") as file:
                return digest(iter(partial(file.read, _BLOCK), b""))
        except OSError:
            return "gone"

    def keys(self, full: bool) -> list[tuple[str, int, int, str]]:
        """What a verdict on each file is remembered by."""
        check = str(self._preparing) if full else "header"
        return [(str(self._root / f.path), f.size, f.modified, check) for f in self._files]


def open_folder(
    folder: Path,
    preparing: Preparing,
    *,
    split: str = "train",
    enough: int | None = None,
    verify: bool | None = None,
    progress: bool = True,
) -> ImageDataset:
    """The readable pictures of a folder, at least the first `enough`; `InputError` when there is none."""
    scan = scan_folder(folder, split)
    scan.log()
    if not scan.pictures:
        left = ", ".join(f"{len(names)} {reason}" for reason, names in scan.left_out.items())
        raise InputError(
            f"image folder {display_name(folder)} holds no image file"
            + (f" (left out: {left})" if left else "")
            + "; known kinds are PNG, JPEG, WebP, BMP, TIFF and whatever else Pillow reads."
        )
    source = FolderSource(folder, scan.pictures, preparing)
    taken = len(source) if enough is None else min(enough, len(source))
    while True:
        broken = {} if verify is False else _broken(source, taken, verify, progress)
        more = 0 if enough is None else enough - (taken - len(broken))
        if more <= 0 or taken == len(source):
            break
        taken = min(taken + more, len(source))
    skipped = [(source.names[i], reason) for i, reason in sorted(broken.items())]
    if len(broken) == taken:
        name, reason = skipped[0]
        raise InputError(
            f"none of the {taken} images in {display_name(folder)} can be read; the first is "
            f"{name}: {reason}."
        )
    skipped += [(display_name(p), "listed in the metadata, not there") for p in scan.missing]
    good = [found for i, found in enumerate(scan.pictures[:taken]) if i not in broken]
    return ImageDataset(
        FolderSource(folder, good, preparing), skipped=skipped, left_out=scan.left_out
    )


def is_small(count: int, size: float) -> bool:
    """Whether a set of so many pictures and bytes is decoded when it is opened."""
    return count <= SMALL and size <= SMALL_BYTES


def _broken(
    source: FolderSource, count: int, verify: bool | None, progress: bool
) -> dict[int, str]:
    full = is_small(count, source.size(count)) if verify is None else verify
    check = source.read if full else source.check_header
    return find_unreadable(check, source.keys(full)[:count], progress=progress)
