"""Which files of a folder are its pictures: the rules of `datasets`' imagefolder, and what they leave out."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image

from equivae.data.formats import find_plugins, is_picture_name
from equivae.data.names import display_name, shorten
from equivae.data.rules import is_our_folder, is_our_picture, listed_files, masks_of, split_of
from equivae.errors import InputError

__all__ = ["Found", "Scan", "scan_folder"]

logger = logging.getLogger(__name__)

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True)
class Found:
    """A file, by its path below the root, with what tells whether it changed."""

    path: str
    size: int
    modified: int


@dataclass
class Scan:
    """What a folder holds.

    Attributes:
        pictures: files that should be pictures, in the order of their paths.
        missing: paths that a metadata file lists and that are not there.
        left_out: reason to the names that it left out.
        others: suffix to the number of files that are no pictures by their name.
    """

    root: Path
    pictures: list[Found] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)

    def leave_out(self, reason: str, names: list[str]) -> None:
        if names:
            self.left_out.setdefault(reason, []).extend(display_name(name) for name in names)

    def log(self) -> None:
        """Say in one sentence what was left out; a warning if pictures may be among it."""
        parts = [
            f"{len(names)} {reason} ({shorten(names)})" for reason, names in self.left_out.items()
        ]
        others = [f"{count} {suffix}" for suffix, count in self.others.most_common(5)]
        if others:
            parts.append(f"{sum(self.others.values())} other files ({', '.join(others)})")
        if parts and os.environ.get("RANK", "0") == "0":
            level = logging.WARNING if self.left_out else logging.INFO
            folder = display_name(self.root)
            logger.log(level, "image folder %s: left out %s", folder, ", ".join(parts))


def scan_folder(root: Path, split: str) -> Scan:
    """The pictures of a folder and its subfolders, for one of `train`, `validation`, `test`, or `all`.

    Symbolic links are followed, and every folder is read once. Hidden files and folders, folders whose name
    begins with two underscores, and what this library wrote are left out. Where a metadata file lists
    `file_name`s, only these are read. Raises `InputError` when the split is unknown or has no picture while
    others have.
    """
    find_plugins()
    scan = Scan(root)
    metadata: list[str] = []
    for found in _walk(scan):
        name = PurePosixPath(found.path).name
        if name in METADATA:
            metadata.append(found.path)
        elif is_picture_name(name) or ("." not in name and _is_picture(root / found.path)):
            scan.pictures.append(found)
        else:
            scan.others[PurePosixPath(name).suffix.lower() or "without suffix"] += 1
    scan.pictures.sort(key=lambda found: PurePosixPath(found.path).parts)
    metadata = _choose_split(scan, split, metadata)
    _choose_listed(scan, metadata)
    masks = masks_of([found.path for found in scan.pictures])
    _drop(scan, masks, "in folders of masks")
    return scan


def _walk(scan: Scan) -> Iterator[Found]:
    """All files that are not hidden; real folders first, so that links to them come second."""
    seen: set[tuple[int, int]] = set()
    folders, linked = [""], list[str]()
    while folders or linked:
        inside = folders.pop() if folders else linked.pop(0)
        try:
            status = (scan.root / inside).stat()
            entries = sorted(os.scandir(scan.root / inside), key=lambda entry: entry.name)
        except OSError as error:
            scan.leave_out(f"that cannot be opened: {error.strerror}", [f"{inside}/"])
            continue
        if (status.st_dev, status.st_ino) in seen:
            scan.leave_out("links to a folder that is read already", [f"{inside}/"])
            continue
        seen.add((status.st_dev, status.st_ino))
        ours = is_our_folder([entry.name for entry in entries], scan.root / inside)
        if ours and inside:
            scan.leave_out("written by equivae", [f"{inside}/"])
            continue
        for entry in entries:
            path = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_dir():
                if entry.name.startswith((".", "__")):
                    scan.leave_out("hidden", [f"{path}/"])
                else:
                    (linked if entry.is_symlink() else folders).append(path)
            elif entry.name.startswith("."):
                scan.leave_out("hidden", [path])
            elif ours and is_our_picture(entry.name):
                scan.leave_out("written by equivae", [path])
            elif entry.is_file():
                try:
                    file = entry.stat()
                except OSError:  # gone meanwhile
                    continue
                yield Found(path, file.st_size, file.st_mtime_ns)
            elif entry.is_symlink():
                scan.leave_out("links to nothing", [path])


def _is_picture(path: Path) -> bool:
    """Whether a file without suffix begins as a picture does."""
    try:
        with Image.open(path):
            return True
    except Exception:  # whatever a plugin makes of a file that is not its own
        return False


def _choose_split(scan: Scan, split: str, metadata: list[str]) -> list[str]:
    """Keep the pictures of a split, and the metadata files of it."""
    if split == "all":
        return metadata
    splits = {found.path: split_of(found.path) for found in scan.pictures}
    present = {name for name in splits.values() if name is not None}
    wanted = split_of(f"{split}/x")
    if not present:
        if wanted != "train":
            raise InputError(
                f"image folder {display_name(scan.root)} has no folder for the split {split!r}; its pictures "
                "are read with split='train'."
            )
        return metadata
    # With no folder for training, what is in none of the others is for training.
    taken = {wanted} if wanted in present else {None} if wanted == "train" else set()
    if not taken & set(splits.values()):
        known = " and ".join(repr(name) for name in sorted(present))
        raise InputError(
            f"image folder {display_name(scan.root)} has no picture for split {split!r}, only for {known}; "
            "pass one of these as split, or 'all'."
        )
    for name in sorted(present - taken):
        dropped = {path for path, own in splits.items() if own == name}
        _drop(scan, dropped, f"in folders for {name} (read with split={name!r})")
    if None not in taken:
        _drop(scan, {p for p, own in splits.items() if own is None}, "in no folder of a split")
    return [path for path in metadata if split_of(path) in taken]


def _choose_listed(scan: Scan, metadata: list[str]) -> None:
    """Where metadata files name the pictures, these and no others are read."""
    listed: set[str] = set()
    for path in metadata:
        listed |= listed_files(scan.root, path)
    if not listed:
        return
    there = {found.path for found in scan.pictures}
    scan.missing = sorted(listed - there)
    _drop(scan, there - listed, f"not listed in {', '.join(sorted(metadata)[:2])}")


def _drop(scan: Scan, paths: set[str], reason: str) -> None:
    scan.leave_out(reason, [found.path for found in scan.pictures if found.path in paths])
    scan.pictures = [found for found in scan.pictures if found.path not in paths]
