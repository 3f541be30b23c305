"""Writing without ever losing what was there: beside and renamed, and only into folders of ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from equivae.errors import InputError

__all__ = ["check_claim", "claim_folder", "partial_folder", "write_beside", "write_folder_beside"]


def claim_folder(folder: str | Path, *, ours: Collection[str] = ()) -> Path:
    """Make `folder`, or take it if it is empty or holds nothing but names in `ours`.

    What a killed `write_beside` or `write_folder_beside` left behind is ours as well.

    Raises `InputError` if it holds other files or is no folder.
    """
    folder = Path(folder)
    check_claim(folder, ours=ours)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_claim(folder: Path, *, ours: Collection[str] = ()) -> None:
    """Raise `InputError` if `claim_folder` could not have it; nothing is written."""
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


def _leftover(path: Path) -> bool:
    return path.name.startswith(".") and ".partial" in path.name


def write_beside(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, then rename it to `path` in one step."""
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def partial_folder(path: Path) -> Path:
    """Where `write_folder_beside` fills what becomes `path`."""
    return path.with_name(f".{path.name}.partial")


def write_folder_beside(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, then rename it to `path`, replacing an earlier one."""
    temporary = partial_folder(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if path.exists():
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        path.replace(old)
        temporary.replace(path)
        shutil.rmtree(old)
    else:
        temporary.replace(path)
