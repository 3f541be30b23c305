"""Rows of `datasets`: in memory, from the hub, saved to disk, or in parquet files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from equivae.data.draws import drawing
from equivae.data.items import ItemSource
from equivae.data.names import display_name
from equivae.data.preparing import IMAGE_KEYS, Preparing, sides_of
from equivae.data.rules import split_of
from equivae.data.unreadable import UnreadableImage, why
from equivae.errors import InputError, first_line

__all__ = [
    "TableSource",
    "choose_split",
    "files_by_split",
    "hub_rows",
    "image_column",
    "is_table",
    "rows_of_path",
]

_NAMES = ("image", *(name for name in IMAGE_KEYS if name != "image"))


class TableSource(ItemSource):
    """The image column of a `datasets.Dataset`, or what its `with_transform` makes of a row."""

    def __init__(self, rows: Any, preparing: Preparing) -> None:
        self.transformed = (getattr(rows, "format", None) or {}).get("type") == "custom"
        self._column: str | None = None
        self._size = getattr(getattr(rows, "data", None), "nbytes", 0)
        if not self.transformed:
            self._column = image_column(rows, preparing.column)
            rows = _encoded(rows, self._column)
        elif preparing.column is not None and len(rows):
            _check_key(rows, preparing.column)
        super().__init__(rows, preparing)
        self.draws = self.transformed

    def item(self, index: int) -> Any:
        try:
            row = self._items[index]
        except MemoryError:
            raise
        except Exception as error:
            if self.transformed and not isinstance(error, (OSError, SyntaxError)):
                raise  # a mistake in the user's function, not a broken picture
            raise UnreadableImage.named(self.names[index], why(error)) from error
        if self._column is None:
            return row
        item = row[self._column]
        if isinstance(item, dict) and item.get("bytes") is None and "://" in str(item.get("path")):
            return self._remote(item, index)
        return Path(item) if isinstance(item, str) else item

    def _remote(self, item: Any, index: int) -> Any:
        """A picture inside an archive or on the hub, which `datasets` opens."""
        import datasets

        try:
            return datasets.Image().decode_example(item)
        except Exception as error:
            raise UnreadableImage.named(self.names[index], why(error)) from error

    def size(self) -> float:
        """Bytes of the table; infinite where reading a row runs a function of the user's."""
        return math.inf if self.transformed else self._size

    def sides(self, index: int) -> tuple[int, int] | None:
        if self.transformed:
            return None
        try:
            item = self._preparing.find(self.item(index), self.names[index])
        except UnreadableImage:
            return None
        return sides_of(item) if isinstance(item, (bytes, Path)) else None

    def about(self) -> str:
        return f"table {self._column} {self._preparing}"

    def marks(self) -> list[str]:
        """The length of every encoded picture and its path, without reading the pictures."""
        found = None if self._column is None else _arrow_marks(self._items, self._column)
        return super().marks() if found is None else found


def is_table(source: object) -> bool:
    """Whether something has the columns of a `datasets.Dataset`."""
    return getattr(source, "column_names", None) is not None and hasattr(source, "__len__")


def choose_split(source: Mapping[str, Any], split: str) -> Any:
    """One of the splits of a `DatasetDict`, or all of them one after another."""
    if split == "all" and "all" not in source and source:
        import datasets

        return datasets.concatenate_datasets(list(source.values()))
    if split not in source:
        known = ", ".join(repr(str(name)) for name in source)
        raise InputError(f"the data set has no split {split!r}; it has {known}; pass one as split.")
    return source[split]


def hub_rows(name: str, split: str) -> Any:
    """The rows of a data set on the hub; `InputError` with the hub's reason."""
    import datasets

    try:
        return datasets.load_dataset(name, split=split)
    except Exception as error:
        raise InputError(
            f"{name!r} is neither a folder here nor a dataset that the hub gave: {first_line(error)}"
        ) from error


def rows_of_path(path: Path, split: str) -> Any | None:
    """The rows of a file or folder that is not a folder of pictures: saved to disk, parquet or arrow."""
    import datasets

    saved = (path / "dataset_dict.json").is_file()
    saved = saved or all((path / n).is_file() for n in ("state.json", "dataset_info.json"))
    try:
        if saved:
            rows = datasets.load_from_disk(str(path))
        elif path.suffix == ".arrow" and path.is_file():
            rows = datasets.Dataset.from_file(str(path))
        else:
            files = files_by_split(path, ".parquet")
            if not files:
                return None
            wanted = choose_split(files, "train" if path.is_file() else split)
            rows = datasets.load_dataset("parquet", data_files=wanted, split="train")
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{display_name(path)} cannot be read as a data set: {first_line(error)}."
        ) from error
    return choose_split(rows, split) if isinstance(rows, Mapping) else rows


def files_by_split(path: Path, suffix: str) -> dict[str, list[str]]:
    """Split to files of a suffix; those that name no split are for training."""
    if path.is_file():
        return {"train": [str(path)]} if path.suffix == suffix else {}
    found: dict[str, list[str]] = {}
    for file in sorted(path.rglob(f"*{suffix}")):
        inside = file.relative_to(path)
        if file.name != "metadata.parquet" and not any(p.startswith(".") for p in inside.parts):
            named = PurePath(inside.parent / inside.stem / "x").as_posix()
            found.setdefault(split_of(named) or "train", []).append(str(file))
    return found


def image_column(rows: Any, wanted: str | None) -> str:
    """The column of the images of rows with named columns; `InputError` where it cannot be told."""
    columns: Sequence[str] = rows.column_names
    if wanted is not None:
        if wanted not in columns:
            raise InputError(f"the dataset has no column {wanted!r}; it has {list(columns)}.")
        return wanted
    import datasets

    features = getattr(rows, "features", None) or {}
    pictures = [str(n) for n, feature in features.items() if isinstance(feature, datasets.Image)]
    for name in _NAMES:
        if name in (pictures or columns):
            return name
    if len(pictures) == 1:
        return pictures[0]
    if pictures:
        raise InputError(
            f"the dataset has several columns of images, {pictures}; name the one to use with image_column."
        )
    raise InputError(
        f"the dataset has columns {list(columns)}, none of them of images; name it with image_column."
    )


def _encoded(rows: Any, column: str) -> Any:
    """The column alone, its pictures still encoded: they are decoded as those of a folder are."""
    import datasets

    if not hasattr(rows, "select_columns"):
        return rows
    rows = rows.select_columns([column])
    if isinstance((rows.features or {}).get(column), datasets.Image):
        return rows.with_format(None).cast_column(column, datasets.Image(decode=False))
    axes, dtype = _array_of((rows.features or {}).get(column))
    if axes in (2, 3) and dtype in ("uint8", "uint16", "float16", "float32", "float64"):
        return rows.with_format("numpy", dtype=np.dtype(dtype))
    return rows


def _array_of(feature: Any) -> tuple[int, str]:
    """Axes and dtype of a column of arrays, which other formats give as lists or as 64-bit numbers."""
    shape = getattr(feature, "shape", None)
    if shape is not None:
        return len(shape), str(feature.dtype)
    axes = 0
    while isinstance(feature, list) or getattr(feature, "feature", None) is not None:
        feature, axes = feature[0] if isinstance(feature, list) else feature.feature, axes + 1
    return axes, str(getattr(feature, "dtype", ""))


def _check_key(rows: Any, wanted: str) -> None:
    with drawing(0, 0):
        row = rows[0]
    if isinstance(row, Mapping) and wanted not in row:
        raise InputError(f"the dataset's rows have no {wanted!r}; they have {sorted(row)}.")


def _arrow_marks(rows: Any, column: str) -> list[str] | None:
    """From the offsets of the arrow table; `None` for what is not a column of encoded pictures."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    try:
        stored = rows.data.column(column)
        kind = stored.type
        if not (pa.types.is_struct(kind) and {f.name for f in kind} >= {"bytes", "path"}):
            return None
        lengths = pc.binary_length(pc.struct_field(stored, "bytes")).to_pylist()
        paths = pc.struct_field(stored, "path").to_pylist()
        chosen = None if rows._indices is None else rows._indices.column(0).to_pylist()
    except (AttributeError, KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None  # not the arrow table of `datasets`
    marks = [f"{n} {PurePath(p).name if p else ''}" for n, p in zip(lengths, paths, strict=True)]
    return marks if chosen is None else [marks[i] for i in chosen]
