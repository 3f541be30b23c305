"""Writing without ever losing what was there: beside and renamed, and only into folders of ours."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from equivae.errors import InputError, WriteError, first_line

__all__ = [
    "claim_folder",
    "make_folder",
    "partial_folder",
    "write_beside",
    "write_files_beside",
    "write_folder_beside",
]

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # of file systems that cannot


def claim_folder(folder: str | Path, *, ours: Collection[str] = ()) -> Path:
    """Make `folder`, or take it if it is empty or holds nothing but names in `ours`.

    What a killed `write_beside` or `write_folder_beside` left behind is ours as well.

    Raises `InputError` if it holds other files, is no folder, or cannot be written into.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output folder {folder} is a file; choose another name.")
    if folder.is_dir():
        foreign = sorted(
            p.name for p in folder.iterdir() if p.name not in ours and not _leftover(p)
        )
        if foreign:
            shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise InputError(
                f"output folder {folder} holds files already ({shown}); choose an empty or new folder, "
                "so that nothing in it is overwritten."
            )
    probe = folder / ".equivae.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"output folder {folder} cannot be written into: {_reason(error)}; choose another one."
        ) from error
    return folder


def _leftover(path: Path) -> bool:
    return path.name.startswith(".") and ".partial" in path.name


def make_folder(folder: Path) -> None:
    """`mkdir -p`; raises `WriteError` where none can be made."""
    with _one_sentence(folder):
        folder.mkdir(parents=True, exist_ok=True)


def write_beside(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, then rename it to `path` in one step.

    The file is on the disk before it is renamed, so that a power cut leaves the old one or the new one
    whole. It has the mode of the file that it replaces, else that which the umask gives. Raises `WriteError`
    when it cannot be written; what was there is untouched.
    """
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    with _one_sentence(path):
        try:
            temporary.unlink(missing_ok=True)
            temporary.touch()
            mode = (path if path.is_file() else temporary).stat().st_mode
            write(temporary)
            temporary.chmod(stat.S_IMODE(mode))  # safetensors writes for its owner alone
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def partial_folder(path: Path) -> Path:
    """Where `write_folder_beside` fills what becomes `path`."""
    return path.with_name(f".{path.name}.partial")


def write_folder_beside(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, then rename it to `path`, replacing an earlier one.

    As `write_beside`, for all files in it.
    """
    temporary = partial_folder(path)
    with _one_sentence(path):
        _fill(temporary, write)
        if path.exists():
            old = path.with_name(f".{path.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            path.replace(old)
            temporary.replace(path)
            _sync(path.parent)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
            _sync(path.parent)


def write_files_beside(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder inside `folder`, then rename all that it wrote into `folder`.

    Files that are there and that `write` did not write stay. As `write_beside` for every one of them.
    """
    temporary = partial_folder(folder / "files")
    with _one_sentence(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _fill(temporary, write)
        for path in sorted(temporary.iterdir()):
            target = folder / path.name
            if target.is_dir() and path.is_dir():  # no folder is renamed over a full one
                shutil.rmtree(target)
            path.replace(target)
        temporary.rmdir()
        _sync(folder)


def _fill(temporary: Path, write: Callable[[Path], None]) -> None:
    """A temporary folder with what `write` writes, all of it on the disk; or no folder at all."""
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        mode = stat.S_IMODE(temporary.stat().st_mode) & 0o666  # a new folder's is the umask's
        for path in (*temporary.rglob("*"), temporary):
            if path.is_file():
                path.chmod(mode)
            _sync(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except WriteError:  # of something inside it, said already
        raise
    except (OSError, SafetensorError) as error:
        raise WriteError(
            f"{path} could not be written: {_reason(error)}; what was there is untouched."
        ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)
