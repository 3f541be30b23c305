"""Sets that are read from one end to the other: tar and parquet shards, and what `datasets` streams."""

from __future__ import annotations

import glob
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equivae.data.formats import is_picture_name
from equivae.data.names import display_name
from equivae.data.preparing import IMAGE_KEYS
from equivae.data.tables import choose_split, files_by_split, image_column
from equivae.errors import InputError, first_line

__all__ = ["Shards", "is_stream", "open_shards"]

_TAR, _PARQUET = ".tar", ".parquet"
_COUNTED = re.compile(r"\{(\d+)\.\.(\d+)\}")  # webdataset's way to write many names
_WINDOWS, _WINDOW = 16, 4096  # of a file, that its mark is made of


def is_stream(source: object) -> bool:
    """Whether something is a `datasets.IterableDataset`, or several by their splits."""
    if isinstance(source, Mapping):
        return bool(source) and all(is_stream(rows) for rows in source.values())
    return hasattr(source, "load_state_dict") and hasattr(source, "n_shards")


def open_shards(
    source: Any, *, split: str = "train", streaming: bool = False, column: str | None = None
) -> Shards | None:
    """What a source streams; `None` where it is to be read by position.

    Args:
        source: a `datasets.IterableDataset`; webdataset shards as a `.tar` file, a folder of them, a pattern
            such as `shards/train-*.tar` or `shards/{0000..0009}.tar`, or an address such as
            `hf://datasets/me/set/*.tar`; with `streaming` parquet files and names of the hub as well.
        split: which one.
        streaming: read as a stream what could be read by position, too.
        column: that holds the images; found if `None`.

    Raises `InputError` for what cannot be streamed, with the reason.
    """
    if isinstance(source, (str, Path)):
        rows = _rows_of_files(source, split, streaming)
        return None if rows is None else Shards(rows, column)
    if is_stream(source):
        rows = choose_split(source, split) if isinstance(source, Mapping) else source
        return Shards(rows, column)
    if streaming:
        raise InputError(
            f"streaming is for shards, names of the hub and datasets.IterableDataset; "
            f"{type(source).__name__} is in memory already, leave streaming out."
        )
    return None


def _rows_of_files(source: str | Path, split: str, streaming: bool) -> Any | None:
    text = str(source)
    if "://" in text:
        if _TAR in text:
            return _load("webdataset", split, data_files={split: text})
        if _PARQUET in text:
            return _load("parquet", split, data_files={split: text})
        raise InputError(f"{text} names no shards; pass an address that ends in .tar or .parquet.")
    path = Path(source)
    if not path.exists():
        files = _matching(text)
        if files:
            kind = "webdataset" if files[0].endswith(_TAR) else "parquet"
            return _load(kind, split, data_files={split: files})
        if not streaming or isinstance(source, Path):
            return None
        return _load(text, split)
    tars = files_by_split(path, _TAR)
    if tars and not (path.is_dir() and _has_pictures(path)):
        chosen = choose_split(tars, "train" if path.is_file() else split)
        return _load("webdataset", split, data_files={split: chosen})
    files_of = files_by_split(path, _PARQUET) if streaming else {}
    if files_of:
        chosen = choose_split(files_of, "train" if path.is_file() else split)
        return _load("parquet", split, data_files={split: chosen})
    if streaming:
        raise InputError(
            f"{display_name(path)} holds no .tar and no .parquet shards to stream; leave streaming out."
        )
    return None


def _matching(text: str) -> list[str]:
    """The files of a pattern, in order; none for a text that is no pattern."""
    counted = _COUNTED.search(text)
    if not counted and not any(c in text for c in "*?["):
        return []
    names = [text]
    if counted:
        first, last = counted.groups()
        names = [
            text[: counted.start()] + str(i).zfill(len(first)) + text[counted.end() :]
            for i in range(int(first), int(last) + 1)
        ]
    found = [sorted(glob.glob(name, recursive=True)) for name in names]  # noqa: PTH207, not below a root
    missing = [name for name, files in zip(names, found, strict=True) if not files]
    if missing:
        what = "is called" if _COUNTED.search(text) else "matches"
        raise InputError(f"no file {what} {missing[0]}; pass shards that are there.")
    files = [file for some in found for file in some]
    suffixes = {Path(file).suffix for file in files}
    if len(suffixes) > 1 or not suffixes <= {_TAR, _PARQUET}:
        raise InputError(
            f"{text} stands for files of {', '.join(sorted(suffixes))}; pass shards of one kind, .tar or "
            ".parquet."
        )
    return files


def _has_pictures(folder: Path) -> bool:
    return any(is_picture_name(path.name) for path in folder.rglob("*"))


def _load(name: str, split: str, **options: Any) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, split=split, streaming=True, **options)
    except Exception as error:
        what = next(iter(options.get("data_files", {split: name}).values()))
        what = what if isinstance(what, str) else what[0]
        raise InputError(f"{what} cannot be read as a stream: {first_line(error)}") from error


@dataclass(frozen=True)
class _Columns:
    """Where the image of a row is."""

    wanted: str | None
    images: tuple[str, ...]

    def item(self, row: Mapping[str, Any]) -> Any:
        """The image, or the row as it is where nothing is known of its columns."""
        for name in self.images:
            if row.get(name) is not None:
                return row[name]
        return None if self.images else dict(row)


class Shards:
    """The shards of a stream: how many, which files, and the rows of each from any place on.

    Attributes:
        rows: the `datasets.IterableDataset`, its pictures still encoded.
        names: what each shard is called: the name of its file, or its number.
        marks: what tells whether the file of each is another one now; `""` where there is none here.
    """

    def __init__(self, rows: Any, column: str | None = None) -> None:
        if getattr(rows, "_distributed", None) is not None:
            raise InputError(
                "the stream is split by node already; pass the whole one, which is shared out here."
            )
        parts = list(_parts(getattr(rows, "_ex_iterable", None)))
        if any(type(part).__name__.startswith("BufferShuffled") for part in parts):
            raise InputError(
                "the stream shuffles by itself, in a buffer that no checkpoint holds; leave out .shuffle() "
                "and pass shuffle_buffer."
            )
        self.rows, self._columns = _encoded(rows, column)
        self.files = _files(parts, len(self))
        self.names = [Path(file).name for file in self.files] or [f"#{i}" for i in range(len(self))]
        self.marks = [_mark(file) for file in self.files] or [""] * len(self)

    def __len__(self) -> int:
        return max(1, int(self.rows.n_shards))

    def open(self, shard: int, state: Mapping[str, Any] | None) -> Any:
        """The rows of a shard, from a state of theirs on; `InputError` if its file is another one now."""
        from datasets.distributed import split_dataset_by_node

        if self.files and _mark(self.files[shard]) != self.marks[shard]:
            raise InputError(
                f"shard {self.names[shard]} is another file than when the run began; put the old one back "
                "and resume, or begin a new run."
            )
        rows = split_dataset_by_node(self.rows, rank=shard, world_size=len(self))
        if state is not None:
            rows.load_state_dict(dict(state))
        return rows

    def example(self, row: Mapping[str, Any], shard: int, index: int) -> tuple[str, Any]:
        """What a row is called, and its image, still encoded where it is a picture."""
        item = self._columns.item(row)
        key = row.get("__key__")
        return f"{Path(self.names[shard]).stem}/{index if key is None else key}", item

    def check(self, record: Iterable[tuple[str, str]]) -> None:
        """`InputError`, with their names, where shards are others than those of a record."""
        now = dict(zip(self.names, self.marks, strict=True))
        before = dict(record)
        gone = [name for name in before if name not in now]
        new = [name for name in now if name not in before]
        changed = [name for name in before if name in now and now[name] != before[name]]
        for some, what in ((gone, "gone"), (changed, "another file now"), (new, "new")):
            if some:
                more = f" and {len(some) - 1} more" if len(some) > 1 else ""
                raise InputError(
                    f"the shards are not those of the run: {some[0]}{more} is {what}; put back those "
                    "it began with, or begin a new run."
                )

    def record(self) -> list[tuple[str, str]]:
        """Names and marks, for `check`."""
        return list(zip(self.names, self.marks, strict=True))


def _parts(iterable: Any) -> Iterator[Any]:
    """What a stream is made of, the outermost first."""
    if iterable is None:
        return
    yield iterable
    inner = getattr(iterable, "ex_iterable", None)
    for part in getattr(iterable, "ex_iterables", None) or ([] if inner is None else [inner]):
        yield from _parts(part)


def _files(parts: list[Any], count: int) -> list[str]:
    """The file of each shard; none where they are not known to be files."""
    for part in parts:
        for value in (getattr(part, "kwargs", None) or {}).values():
            named = isinstance(value, list) and all(isinstance(one, str) for one in value)
            if (
                named
                and len(value) == count
                and all("://" in v or Path(v).is_file() for v in value)
            ):
                return list(value)
    return []


def _mark(file: str) -> str:
    """The size of a file here and a checksum of 64 KiB of it; nothing for an address."""
    path = Path(file)
    if "://" in file:
        return ""
    try:
        size, check = path.stat().st_size, 0
        with path.open("rb") as opened:
            for i in range(_WINDOWS):
                opened.seek(max(0, size - _WINDOW) * i // max(1, _WINDOWS - 1))
                check = zlib.crc32(opened.read(_WINDOW), check)
    except OSError:
        return "gone"
    return f"{size} {check:08x}"


def _encoded(rows: Any, column: str | None) -> tuple[Any, _Columns]:
    """The columns of images and those that name a row, the pictures as their bytes."""
    import datasets

    if rows.column_names is None:
        return rows, _Columns(column, ())
    first = image_column(rows, column)
    features = rows.features or {}
    pictures = [n for n, one in features.items() if isinstance(one, datasets.Image)]
    # Shards may hold a JPEG here and a PNG there, each under its own suffix.
    others = [] if column else [n for n in pictures if n in IMAGE_KEYS and n != first]
    kept = [first, *others]
    named = [name for name in ("__key__",) if name in rows.column_names]
    rows = rows.select_columns([*kept, *named])
    for name in kept:
        if name in pictures:
            rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows, _Columns(column, tuple(kept))
