"""Rows that outlast a run, in a folder that runs share: found by all that they were computed from.

A row is a function of an image, of how it is prepared and of the encoder. So the name of a set of rows is a
digest of these three: every byte of the pictures, what is done to them, and the weights, layers and
configuration that an encode depends on. Whatever is not in these, such as a class's own code, shows in the
first image, which is encoded again and compared.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from torch import nn

from equivae.data.base import digest
from equivae.files.fingerprint import fingerprint_of
from equivae.files.writing import make_folder, write_folder_beside
from equivae.processes import gathered, on_main_process, process_state
from equivae.training.rows import Rows, floats_of

__all__ = ["kept_rows"]

logger = logging.getLogger(__name__)

_FILE, _ABOUT = "rows.npy", "about.json"
_FORMAT = 1
_PATIENCE = 20.0  # seconds between two looks whether another run is done
_CLOSE = 0.02  # of the norm of the first row: more than bf16 and another device change
_BLOCK = 2**20  # bytes


def kept_rows(rows: Rows, folder: Path, own: Path, passing: frozenset[str]) -> np.ndarray:
    """The rows, read-only and mapped into memory: those of an earlier run, else computed and kept.

    Processes of a run share the work; another run that wants the same waits. What a killed run left is never
    used, since rows get their name when all of them are on the disk, with a digest.

    Args:
        rows: what is wanted.
        folder: that runs share.
        own: this run's folder, for rows that cannot be kept.
        passing: names of weights that the rows do not depend on.
    """
    on_main_process(lambda: make_folder(folder))
    name = f"{rows.name}-{_key(rows, passing)}"
    entry, building = folder / name, folder / f".{name}.partial.npy"
    with _held(folder / f".{name}.lock", rows.name):
        if not gathered(on_main_process(lambda: _good(rows, entry)))[0]:
            before = len(rows.images.replaced)
            try:
                rows.compute(building)
                whole = all(count == before for count in gathered(len(rows.images.replaced)))
                if not whole:  # an image that was away for a moment has a neighbour's row
                    return _take_along(building, own / f"{rows.name}.npy")
                on_main_process(lambda: write_folder_beside(entry, partial(_put, rows, building)))
            finally:
                on_main_process(lambda: building.unlink(missing_ok=True))
        return np.lib.format.open_memmap(entry / _FILE, "r")


def _key(rows: Rows, passing: frozenset[str]) -> str:
    """Of images, preparation and encoder; each process reads its share of the images."""
    state = process_state()
    with state.split_between_processes(list(range(len(rows.images)))) as mine:
        shares = gathered(rows.images.contents(mine))
    contents = [one for share in shares for one in share]
    module = rows.vae.module
    said = [str(_FORMAT), str(rows.dtype), str(rows.shape), rows.images.about()]
    return digest([*said, *contents, *_encoder(module, passing)])


def _encoder(module: nn.Module, passing: frozenset[str]) -> list[str]:
    config = {k: v for k, v in dict(getattr(module, "config", {})).items() if k[:1] != "_"}
    weights = fingerprint_of(module, without=passing)
    return [weights, type(module).__qualname__, repr(module), json.dumps(config, default=str)]


def _good(rows: Rows, entry: Path) -> bool:
    """Whether rows of that name are there, whole, and what the encoder gives now."""
    if not entry.is_dir():
        return False
    try:
        about = json.loads((entry / _ABOUT).read_text(encoding="utf-8"))
        found = np.lib.format.open_memmap(entry / _FILE, "r")
        whole = about["digest"] == _digest(entry / _FILE) and found.shape == rows.shape
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        logger.warning("%s is damaged and computed again.", entry)
        return False
    difference = (floats_of(found[0]) - rows.first).norm()
    if not difference <= _CLOSE * rows.first.norm():
        logger.warning("%s is of an encoder that runs otherwise now, and computed again.", entry)
        return False
    logger.info("The %s of %d images are those of %s.", rows.name, len(found), entry)
    return True


def _put(rows: Rows, building: Path, folder: Path) -> None:
    """Move the rows into a folder that gets its name when all is in it."""
    about: dict[str, Any] = {
        "what": f"{rows.name} that equivae computed once; may be removed when no run is using them",
        "images": len(rows.images),
        "shape": list(rows.shape),
        "dtype": str(rows.dtype).removeprefix("torch."),
        "vae": type(rows.vae.module).__name__,
        "digest": _digest(building),
    }
    (folder / _ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
    building.replace(folder / _FILE)


def _take_along(building: Path, path: Path) -> np.ndarray:
    logger.warning(
        "an image could not be read while %s were computed, so they are not kept for other runs.",
        path.stem,
    )
    on_main_process(lambda: shutil.move(building, path))
    return np.lib.format.open_memmap(path, "r")


def _digest(path: Path) -> str:
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        for block in iter(partial(file.read, _BLOCK), b""):
            found.update(block)
    return found.hexdigest()


@contextmanager
def _held(path: Path, name: str) -> Iterator[None]:
    """The lock, on the main process; the others are here as long as it has it."""
    lock = FileLock(path)
    patience = 0.0
    while not gathered(on_main_process(partial(_taken, lock, patience)))[0]:
        if not patience and process_state().is_main_process:
            logger.warning("another run computes these %s; this one waits for them.", name)
        patience = _PATIENCE
    try:
        yield
    finally:
        lock.release()


def _taken(lock: FileLock, patience: float) -> bool:
    with suppress(Timeout):
        lock.acquire(timeout=patience)
        return True
    return False
