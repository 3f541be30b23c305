"""Replacing a file of somebody else's cache: whole or not at all, and only if it is still what was read."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equivae.errors import InputError, first_line
from equivae.files.writing import write_with_mode

__all__ = ["FileStamp", "locked", "remove_leftovers", "replace_file", "stamp", "write_parts"]

_MARK = ".equivae-partial-"
_LOCK = ".equivae-lock"
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_FULL[errno.EFBIG] = "the file would be larger than is allowed"

FileStamp = tuple[int, int]


def stamp(path: Path) -> FileStamp:
    """By which a change of a file is noticed."""
    return _stamp(path.stat())


def replace_file(
    path: Path, write: Callable[[Path], None], *, unless: FileStamp | None = None
) -> None:
    """Let `write` fill a file beside `path`, then put it in its place in one step.

    Args:
        path: what is replaced, or a new file.
        write: fills the file that it is given.
        unless: what `stamp` said of `path` before it was read: if it changed since, nothing is written.

    Raises `InputError` when the disk is full or the file changed; `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name}{_MARK}{os.getpid()}")
    try:
        write_with_mode(temporary, write, like=path)
        found = _status(path)
        if unless is not None and (found is None or _stamp(found) != unless):
            raise InputError(
                f"{path} changed while it was read: the cache is being written; wait for the tool that "
                "writes "
                "it and run again."
            )
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _cannot_write(path, error) from error
        raise


def write_parts(path: Path, parts: Iterable[Any]) -> None:
    """A new file of parts, each bytes or contiguous memory, that are not joined first."""
    with path.open("wb") as file:
        file.writelines(parts)


def _cannot_write(path: Path, error: OSError) -> InputError:
    reason = _FULL.get(error.errno or 0)
    if reason is None:
        return InputError(f"{path} cannot be written: {first_line(error)}.")
    return InputError(
        f"{reason} while writing {path}, which is as it was; make room and run again, which goes on where "
        "this stopped."
    )


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _stamp(found: os.stat_result) -> FileStamp:
    return found.st_size, found.st_mtime_ns


def remove_leftovers(folder: Path) -> None:
    """Files that a killed run left half written."""
    for path in folder.rglob(f".*{_MARK}*"):
        number = re.search(rf"{re.escape(_MARK)}(\d+)$", path.name)
        if number is not None and not _alive(int(number[1])):
            path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One run at a time in a folder. `InputError` when another is at work."""
    lock = folder / _LOCK
    for _ in range(2):
        try:
            with lock.open("x", encoding="ascii") as file:
                file.write(str(os.getpid()))
            break
        except FileExistsError:
            owner = _owner(lock)
            if owner is not None and _alive(owner):
                raise InputError(
                    f"another run (process {owner}) works in {folder}; wait until it has ended."
                ) from None
            lock.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be written to: {first_line(error)}.") from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _owner(lock: Path) -> int | None:
    try:
        return int(lock.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _alive(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is Ctrl+C
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
