"""Tensors in files of their own, SimpleTuner's among them: the moved ones go to a second folder.

SimpleTuner finds a latent by its image's name alone, so that a flipped copy needs a cache folder of its own:
a second dataset with the same images and that `cache_dir_vae`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivae.caches.layout import CacheFormat, Job, Picture, State, Target
from equivae.caches.tensors import SafeFile, batch_of, read_pt
from equivae.caches.writing import replace_file
from equivae.errors import InputError

__all__ = ["PlainTensors", "SimpleTuner", "check_manifest", "write_manifest"]

_MANIFEST = "equivae_cache.json"
_NAMES = ("latents", "latent", "samples", "latent_tensor")
_MARK = "equivae"


class PlainTensors(CacheFormat):
    """`.safetensors` or `.pt`: a tensor, or tensors by name of which one is `latents`."""

    name = "plain"
    looks = "`.safetensors` or `.pt` files with a tensor, or with one that is called `latents`"
    in_place = False

    def owns(self, path: Path) -> bool:
        if path.suffix == ".pt":
            return _latent_keys(read_pt(path)) is not None
        if path.suffix == ".safetensors" and path.parent.name != "_latent_cache":
            shapes = SafeFile(path).shapes
            return _chosen({name: len(shape) for name, shape in shapes.items()}) is not None
        return False

    def read(self, path: Path, channels: int | None = None) -> list[Tensor]:
        _, _, latents = self._content(path)
        return [batch_of(latents, channels)[0]]

    def state(self, path: Path, target: Target) -> State:
        return State.DONE if self._path(path, target).is_file() else State.MISSING

    def job(self, path: Path, target: Target) -> Job:
        content, key, latents = self._content(path)
        batch, single = batch_of(latents, target.op.channels)
        to = self._path(path, target)

        def keep(moved: Sequence[Tensor]) -> int:
            result = moved[0][0] if single else moved[0]
            made: Any = result if key is None else {**content, key: result}
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".pt":
                replace_file(to, lambda temporary: torch.save(made, temporary))
            else:
                metadata = {**SafeFile(path).metadata, _MARK: target.op.signature}
                replace_file(to, lambda temporary: SafeFile.save(made, temporary, metadata))
            return len(batch)

        return Job(path, [batch], keep)

    def picture(self, path: Path, images: dict[str, Path]) -> Picture | None:
        image = images.get(path.stem)
        return None if image is None else Picture(image)

    @staticmethod
    def _path(path: Path, target: Target) -> Path:
        assert target.folder is not None
        return target.folder / path.relative_to(target.root)

    @staticmethod
    def _content(path: Path) -> tuple[Any, str | None, Tensor]:
        """All of a file, under which name its latents are, and the latents."""
        content: Any = read_pt(path) if path.suffix == ".pt" else SafeFile(path).tensors()
        key = _latent_keys(content)
        if key is None:
            raise InputError(
                f"{path} holds no tensor that can be latents, (c, h, w) or (B, c, h, w)."
            )
        latents: Tensor = content if key == "" else content[key]
        others = {} if key == "" else {n: v for n, v in content.items() if n != key}
        grids = [n for n, v in others.items() if isinstance(v, Tensor) and v.ndim >= 3]
        if grids:
            raise InputError(
                f"{path} holds {grids[0]!r} of shape {tuple(others[grids[0]].shape)} beside its latents, "
                "and what a flip "
                "makes of it is not known; such caches cannot be transformed."
            )
        return content, key or None, latents


class SimpleTuner(PlainTensors):
    """`<sha256 of the image's name>.pt`, a bare tensor `(c, h, w)`."""

    name = "simpletuner"
    looks = "SimpleTuner's `<sha256>.pt` with a bare tensor"
    scaled = True

    def owns(self, path: Path) -> bool:
        named = re.fullmatch(r"[0-9a-f]{64}\.pt", path.name) is not None
        return named and super().owns(path)

    def picture(self, path: Path, images: dict[str, Path]) -> Picture | None:
        for stem, image in images.items():
            if hashlib.sha256(stem.encode()).hexdigest() == path.stem:
                return Picture(image)
        return None


def write_manifest(target: Target) -> None:
    """Note in the output folder which op made what is in it."""
    assert target.folder is not None
    target.folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"transform": target.op.move, "signature": target.op.signature}) + "\n"
    replace_file(target.folder / _MANIFEST, lambda to: _write(to, text))


def check_manifest(target: Target) -> None:
    """`InputError` unless the output folder is empty, new, or of the same op."""
    folder = target.folder
    assert folder is not None
    if (
        folder.resolve() == target.root.resolve()
        or target.root.resolve() in folder.resolve().parents
    ):
        raise InputError(f"output_dir {folder} lies in the cache; choose a folder beside it.")
    if not folder.exists() or not any(folder.iterdir()):
        return
    manifest = folder / _MANIFEST
    if not manifest.is_file():
        raise InputError(
            f"output_dir {folder} holds other files already; choose an empty or new folder."
        )
    if json.loads(manifest.read_text(encoding="utf-8")).get("signature") != target.op.signature:
        raise InputError(
            f"output_dir {folder} holds latents of another op; choose another folder, or remove it."
        )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _latent_keys(content: Any) -> str | None:
    """`""` for a bare tensor, the name for tensors by name, `None` for neither."""
    if isinstance(content, Tensor):
        return "" if content.ndim >= 3 and content.is_floating_point() else None
    if not isinstance(content, dict):
        return None
    axes = {n: v.ndim for n, v in content.items() if isinstance(v, Tensor)}
    return _chosen(axes)


def _chosen(axes: dict[str, int]) -> str | None:
    return next(_candidates(axes), None)


def _candidates(axes: dict[str, int]) -> Iterator[str]:
    yield from (name for name in _NAMES if axes.get(name, 0) >= 3)
    grids = [name for name, count in axes.items() if count >= 3]
    if len(grids) == 1:
        yield grids[0]
