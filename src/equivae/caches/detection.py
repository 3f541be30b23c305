"""Which tool made a folder of cached latents."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from equivae.caches.ai_toolkit import AiToolkit
from equivae.caches.kohya import Kohya
from equivae.caches.layout import CacheFormat
from equivae.caches.plain import PlainTensors, SimpleTuner
from equivae.caches.shards import LightningDiT
from equivae.errors import InputError, did_you_mean

__all__ = ["FORMATS", "cache_files", "detect", "find_format"]

FORMATS: dict[str, CacheFormat] = {
    made.name: made
    for made in (Kohya(), LightningDiT(), AiToolkit(), SimpleTuner(), PlainTensors())
}
"""By name, the more particular ones first."""

_SUFFIXES = (".npz", ".safetensors", ".pt")
_BEING_WRITTEN = (".tmp", ".part", ".partial", ".incomplete", ".lock")
_PROBED = 64  # files of which the format is found


def detect(cache_dir: str | Path) -> CacheFormat:
    """The format of the cached latents in a folder and below.

    Raises `InputError` for a folder without any, saying what was looked for, and for one that mixes several.

    ```python
    import numpy as np

    import equivae.caches

    z = np.zeros((4, 8, 8), np.float32)
    np.savez("dog_0064x0064_sdxl.npz", latents=z, original_size=[64, 64], crop_ltrb=[0, 0, 64, 64])
    assert equivae.caches.detect(".").name == "kohya"
    ```
    """
    folder = _folder(cache_dir)
    candidates = [p for p in _files(folder) if p.suffix in _SUFFIXES]
    step = max(1, len(candidates) // _PROBED)
    found = Counter(name for path in candidates[::step] if (name := _owner(path)) is not None)
    if not found:
        looked = "; ".join(one.looks for one in FORMATS.values())
        raise InputError(
            f"{folder} holds no cached latents of a known format; looked for: {looked}."
        )
    if len(found) > 1:
        names = " and ".join(sorted(found))
        raise InputError(
            f"{folder} holds caches of several formats ({names}); say which one is meant with format="
            f"{sorted(found)[0]!r}, or pass one of its folders."
        )
    return FORMATS[next(iter(found))]


def find_format(name: str, folder: Path) -> CacheFormat:
    """The format of that name, or what `detect` finds for `"auto"`."""
    if name == "auto":
        return detect(folder)
    if name not in FORMATS:
        raise InputError(f"format={name!r} is unknown.{did_you_mean(name, ['auto', *FORMATS])}")
    return FORMATS[name]


def cache_files(folder: str | Path, form: CacheFormat) -> list[Path]:
    """The files of a format, in the order of their names.

    Raises `InputError` when there are none, or when names tell that the cache is being written.
    """
    folder = _folder(folder)
    everything = _files(folder)
    unfinished = [p for p in everything if p.name.lower().endswith(_BEING_WRITTEN)]
    if unfinished:
        raise InputError(
            f"the cache is being written: {unfinished[0]} is there; wait for the tool that writes it, or "
            "remove "
            "that file if nothing does."
        )
    found = [p for p in everything if p.suffix in _SUFFIXES and form.owns(p)]
    if not found:
        raise InputError(
            f"{folder} holds no file of format {form.name!r}; looked for {form.looks}."
        )
    return found


def _owner(path: Path) -> str | None:
    return next((name for name, form in FORMATS.items() if form.owns(path)), None)


def _folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"cache_dir {folder} is not a folder; pass the folder that holds the cached latents."
        )
    return folder


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
