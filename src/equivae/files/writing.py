"""Writing without ever losing what was there: beside and renamed, and only into folders of ours."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError

from equivae.errors import InputError, WriteError, first_line
from equivae.options import check_path, quoted
from equivae.secrets import redact

__all__ = [
    "bounded_name",
    "check_claim",
    "check_name",
    "check_output",
    "child",
    "claim_folder",
    "clear_leftovers",
    "hide_secrets",
    "make_folder",
    "partial_folder",
    "remove_folder",
    "reserve",
    "write_beside",
    "write_files_beside",
    "write_folder_beside",
    "write_with_mode",
]

_AT_WORKING_FOLDER = -100  # what a relative path is relative to
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # of file systems that cannot
_TEXTS = frozenset({".csv", ".html", ".json", ".jsonl", ".md", ".svg", ".txt", ".yaml", ".yml"})
_LONGEST_NAME = (
    200  # bytes, so that what is put before and behind still fits into the file system's 255
)


def check_name(what: str, name: object) -> str:
    """The name, if it can be one of a file in the folder that is meant and nowhere else.

    Raises `InputError` for what leads elsewhere, is hidden, or no file system takes.
    """
    good = isinstance(name, str) and name.isprintable() and not set(name) & set('/\\:*?"<>|')
    if not good or not 0 < len(str(name).encode()) <= _LONGEST_NAME or str(name)[0] in ". -":
        raise InputError(
            f"{what} {quoted(name)} cannot be used: it becomes the name of a file, so it may have at most "
            f'{_LONGEST_NAME} bytes, none of / \\ : * ? " < > |, and no dot, dash or blank in front.'
        )
    return str(name)


def bounded_name(name: str, most: int = 100) -> str:
    """The name, or where it is longer its beginning and a digest of the whole."""
    if len(name) <= most:
        return name
    return f"{name[: most - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def child(folder: Path, name: str, what: str = "the name") -> Path:
    """`folder / name`, for a name that came from outside; `InputError` where it leads elsewhere."""
    return folder / check_name(what, name)


def hide_secrets(path: Path) -> None:
    """Put `***` in place of the secrets in a text file, or in every text file of a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    for file in files:
        if file.suffix.lower() not in _TEXTS:
            continue
        # Whatever bytes are in it come back as they were.
        text = file.read_bytes().decode("utf-8", "surrogateescape")
        hidden = redact(text)
        if hidden != text:
            file.write_bytes(hidden.encode("utf-8", "surrogateescape"))


def claim_folder(folder: str | Path, *, ours: Collection[str] = ()) -> Path:
    """Make `folder`, or take it if it is empty or holds nothing but names in `ours`.

    What a killed `write_beside` or `write_folder_beside` left behind is ours as well.

    Raises `InputError` if it holds other files, is not a folder, or cannot be made or written to.
    """
    folder = Path(folder)
    check_claim(folder, ours=ours)
    _make(folder)
    probe = folder / ".equivae.partial"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"output folder {folder} cannot be written into: {error.strerror or error}; choose another one."
        ) from error
    return folder


def check_claim(folder: Path, *, ours: Collection[str] = (), otherwise: str = "") -> None:
    """Raise `InputError` if `claim_folder` could not have it; nothing is written.

    The message ends with `otherwise`, what else there is to do.
    """
    check_output("output folder", folder)
    if folder.is_dir():
        foreign = sorted(
            p.name for p in folder.iterdir() if p.name not in ours and not _leftover(p)
        )
        if foreign:
            shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise InputError(
                f"output folder {folder} holds files already ({shown}); choose an empty or new folder, "
                f"so that nothing in it is overwritten{otherwise}."
            )


def check_output(name: str, folder: str | Path) -> None:
    """`InputError` unless the folder is there or can be made, and may be written to; makes nothing."""
    check_path(name, folder)
    if not str(folder).isprintable():
        raise InputError(
            f"{name} must have a name of printable characters, got {quoted(str(folder))}."
        )
    folder = Path(folder)
    try:
        there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{name} {folder} is a file; choose another name.")
        if not there.is_dir():
            raise InputError(
                f"{name} {folder} cannot be made: {there} is a file; choose another name."
            )
        if not os.access(there, os.W_OK | os.X_OK):
            raise InputError(
                f"{name} {folder} cannot be written to: {there} does not allow it; choose another name."
            )
    except OSError as error:
        raise InputError(_cannot(name, folder, error)) from error


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed `write_beside` or `write_folder_beside` left in a folder that nobody writes to.

    What was to be replaced is put back where nothing took its place yet.
    """
    for path in [p for p in folder.iterdir() if _leftover(p)] if folder.is_dir() else []:
        replaced = folder / path.name[1 : -len(".old")]
        if path.name.endswith(".old") and not replaced.exists():
            path.replace(replaced)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def reserve(file: BinaryIO, size: int) -> None:
    """Give a file so many bytes in all, zeros from here on, that the disk really has, or raise `OSError`.

    Without it a file that is mapped into memory ends the process with SIGBUS once the disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    block = bytes(1 << 20)
    while (left := size - file.tell()) > 0:
        file.write(block[:left])
    file.flush()


def _make(folder: Path) -> None:
    try:
        _make_durable(folder)
    except OSError as error:
        raise InputError(_cannot("output folder", folder, error)) from error


def _cannot(name: str, folder: Path, error: OSError) -> str:
    return f"{name} {folder} cannot be made: {error.strerror or error}; choose another name."


def _leftover(path: Path) -> bool:
    return path.name.startswith(".") and (".partial" in path.name or path.name.endswith(".old"))


def make_folder(folder: Path) -> None:
    """`mkdir -p`; raises `WriteError` where none can be made."""
    with _one_sentence(folder):
        _make_durable(folder)


def _make_durable(folder: Path) -> None:
    """`mkdir -p`, with every name that is new on the disk."""
    new = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(new):
        with suppress(PermissionError):  # of a folder that takes new names and shows none
            _sync(path.parent)


def write_beside(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, hide the secrets in it, then rename it to `path` in one step.

    The file is on the disk before it is renamed, so that a power cut leaves the old one or the new one
    whole. It has the mode of the file that it replaces, else that which the umask gives. Raises `WriteError`
    when it cannot be written; what was there is untouched.
    """
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    with _one_sentence(path):
        try:
            temporary.unlink(missing_ok=True)
            write_with_mode(temporary, write, like=path)
            hide_secrets(temporary)
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_with_mode(path: Path, write: Callable[[Path], None], *, like: Path) -> None:
    """Let `write` fill a new file, with the mode of `like` if that is there, else as the umask says.

    safetensors writes for its owner alone.
    """
    path.touch()
    mode = (like if like.is_file() else path).stat().st_mode
    write(path)
    path.chmod(stat.S_IMODE(mode))


def partial_folder(path: Path) -> Path:
    """Where `write_folder_beside` fills what becomes `path`."""
    return path.with_name(f".{path.name}.partial")


def write_folder_beside(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, then rename it to `path`, replacing an earlier one.

    As `write_beside`, for all files in it: secrets in its texts are hidden, too.
    """
    temporary = partial_folder(path)
    with _one_sentence(path):
        _fill(temporary, write)
        _put(temporary, path)


def _put(new: Path, path: Path) -> None:
    """Rename a folder to a name that another folder may have; that one is removed afterwards.

    Where the system can exchange two names there is a folder under this one at every moment. Elsewhere a
    kill between two renames leaves it beside, and `clear_leftovers` puts it back.
    """
    if not path.exists():
        new.replace(path)
        _sync(path.parent)
    elif _exchanged(new, path):
        _sync(path.parent)
        shutil.rmtree(new)
    else:
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        path.replace(old)
        try:
            new.replace(path)
        except BaseException:
            old.replace(path)
            raise
        _sync(path.parent)
        shutil.rmtree(old)


def _exchanged(a: Path, b: Path) -> bool:
    """Exchange two names in one step, if the system and the file system can: Linux's `renameat2`."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    done: int = rename(_AT_WORKING_FOLDER, os.fsencode(a), _AT_WORKING_FOLDER, os.fsencode(b), 2)
    return done == 0


def remove_folder(path: Path) -> None:
    """Remove a folder in one step: killed in the middle, nothing of it is left under its name."""
    with _one_sentence(path):
        gone = partial_folder(path)
        shutil.rmtree(gone, ignore_errors=True)
        path.replace(gone)
        shutil.rmtree(gone)


def write_files_beside(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder inside `folder`, then rename all that it wrote into `folder`.

    Files that are there and that `write` did not write stay. As `write_beside` for every one of them.
    """
    temporary = partial_folder(folder / "files")
    with _one_sentence(folder):
        _make_durable(folder)
        _fill(temporary, write)
        for path in sorted(temporary.iterdir()):
            target = folder / path.name
            if target.is_dir() and path.is_dir():  # no folder is renamed over a full one
                _put(path, target)
            else:
                path.replace(target)
        temporary.rmdir()
        _sync(folder)


def _fill(temporary: Path, write: Callable[[Path], None]) -> None:
    """A temporary folder with what `write` writes, all of it on the disk; or no folder at all."""
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _make_durable(temporary.parent)
        temporary.mkdir()
        write(temporary)
        hide_secrets(temporary)
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
