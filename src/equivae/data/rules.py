"""What names say about pictures: splits, masks, metadata, and what this library wrote itself."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from equivae.data.names import display_name
from equivae.errors import InputError

__all__ = ["is_our_folder", "is_our_picture", "listed_files", "masks_of", "split_of"]

# Those of datasets.data_files, which tell splits by the names of folders; here upper case counts as well.
_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLITS = {
    split: re.compile(rf"(.*[-._ 0-9])?({'|'.join(words)})([-._ 0-9].*)?", re.IGNORECASE)
    for split, words in _KEYWORDS.items()
}
_MASKS = frozenset({"mask", "masks"})
_REPORTS = ("report.json", "comparison.json", "analysis.json")
_OURS = re.compile(
    r"((panels|latents|sweep)_.*|overview|flat_field|lie|spectrum|profile|loss|comparison|analysis|choices)"
    r"\.png"
)


def split_of(path: str) -> str | None:
    """The split that a path's folders name, the outermost first: "train", "validation", "test" or `None`."""
    for part in PurePosixPath(path).parts[:-1]:
        for split, pattern in _SPLITS.items():
            if pattern.fullmatch(part):
                return split
    return None


def masks_of(paths: Iterable[str]) -> set[str]:
    """The pictures in folders called mask or masks, if every one is named as a picture elsewhere is."""
    paths = list(paths)
    inside = [p for p in paths if _MASKS & {part.lower() for part in PurePosixPath(p).parts[:-1]}]
    stems = {PurePosixPath(p).stem for p in set(paths) - set(inside)}
    named = [re.sub(r"[-_ ]mask$", "", PurePosixPath(p).stem) for p in inside]
    return set(inside) if inside and stems.issuperset(named) else set()


def is_our_folder(names: list[str], folder: Path) -> bool:
    """Whether `equivae` wrote a report or the checkpoints of a run into a folder."""
    for name in _REPORTS:
        if name in names and f"{Path(name).stem}.md" in names:
            return True
    runs = [name for name in names if name.startswith("checkpoint-")]
    return any((folder / name / "run.json").is_file() for name in runs)


def is_our_picture(name: str) -> bool:
    """Whether a report writes pictures of that name."""
    return _OURS.fullmatch(name) is not None


def listed_files(root: Path, metadata: str) -> set[str]:
    """The paths below the root that a metadata file lists as `file_name`; none if it has no such column."""
    try:
        names = list(_file_names(root / metadata))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise InputError(
            f"{display_name(root / metadata)} cannot be read as a list of pictures: {error}; mend or remove "
            "it."
        ) from error
    folder = PurePosixPath(metadata).parent.as_posix()
    return {os.path.normpath(f"{folder}/{name}").replace(os.sep, "/") for name in names}


def _file_names(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        import pyarrow.parquet  # type: ignore[import-untyped]

        table = pyarrow.parquet.read_table(path)
        rows = table.select([n for n in _COLUMNS if n in table.column_names]).to_pylist()
    else:
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                rows = list(csv.DictReader(file))
            else:
                rows = [json.loads(line) for line in file if line.strip()]
    found = [row[key] for row in rows for key in _COLUMNS[:1] if row.get(key)]
    return found or [row[key] for row in rows for key in _COLUMNS[1:] if row.get(key)]


_COLUMNS = ("file_name", "image_file_name")
