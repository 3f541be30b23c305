"""ai-toolkit's `_latent_cache`: a file for a latent and one for its flip, found by a hash of its metadata.

The name is `<image>_<hash>.safetensors`, the hash an md5 over the JSON of what the latent depends on, with
`flip_x` and `flip_y` where they are true. Layout: ai-toolkit, toolkit/dataloader_mixins.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equivae.caches.layout import CacheFormat, Job, Picture, State, Target
from equivae.caches.op import CacheOp
from equivae.caches.tensors import SafeFile
from equivae.caches.writing import replace_file
from equivae.errors import InputError

__all__ = ["AiToolkit"]

_FLIPS = {"hflip": ("flip_x",), "vflip": ("flip_y",), "rot180": ("flip_x", "flip_y")}
_MARK = "equivae"
_NOT_HASHED = ("software", "format", _MARK)
_TEXTS = ("filename", "latent_space_version")
_LATENTS = ("latent", "first_frame_latent")
_PIXELS = "tensor"


class AiToolkit(CacheFormat):
    """`_latent_cache/<image>_<hash>.safetensors` with `latent`; the moved ones become files of their "
    "own."""

    name = "ai_toolkit"
    looks = "ai-toolkit's `_latent_cache/<image>_<hash>.safetensors` with `latent`"
    moves = tuple(_FLIPS)
    scaled = True

    def owns(self, path: Path) -> bool:
        if path.suffix != ".safetensors" or path.parent.name != "_latent_cache":
            return False
        file = SafeFile(path)
        return "latent" in file.shapes and not any(flip in file.metadata for flip in _flips())

    def read(self, path: Path, channels: int | None = None) -> list[Tensor]:
        latent = SafeFile(path).tensors()["latent"]
        if latent.dtype == torch.uint8:
            raise InputError(
                f"{path} holds pixels (uint8) in place of latents, as ai-toolkit keeps them for models "
                "without a "
                "VAE; no latent op applies to them."
            )
        return [latent[None]]

    def state(self, path: Path, target: Target) -> State:
        other = self._path(path, target.op)
        if not other.is_file():
            return State.MISSING
        found = SafeFile(other).metadata.get(_MARK)
        if found is None:
            return State.TOOL
        return State.DONE if found == target.op.signature else State.OTHER_OP

    def job(self, path: Path, target: Target) -> Job:
        self.read(path)  # refuses pixels
        file, to = SafeFile(path), self._path(path, target.op)
        tensors = file.tensors()
        names = [name for name in _LATENTS if name in tensors]
        metadata = {**file.metadata, **dict.fromkeys(_FLIPS[target.op.move], "true")}
        metadata[_MARK] = target.op.signature
        if _PIXELS in tensors:
            tensors[_PIXELS] = target.op.plain.pixel(tensors[_PIXELS])

        def keep(moved: Sequence[Tensor]) -> int:
            tensors.update((name, batch[0]) for name, batch in zip(names, moved, strict=True))
            replace_file(to, lambda temporary: SafeFile.save(tensors, temporary, metadata))
            return 1

        return Job(path, [tensors[name][None] for name in names], keep)

    def factor(self, path: Path) -> int | None:
        file = SafeFile(path)
        width, cells = _facts(file.metadata).get("crop_width"), file.shapes["latent"][-1]
        return width // cells if isinstance(width, int) and width and not width % cells else None

    def picture(self, path: Path, images: dict[str, Path]) -> Picture | None:
        facts = _facts(SafeFile(path).metadata)
        image = path.parents[1] / str(facts.get("filename"))
        if not image.is_file():
            return None
        resized = (int(facts["scale_to_width"]), int(facts["scale_to_height"]))
        return Picture(image, resized, (int(facts["crop_x"]), int(facts["crop_y"])))

    def _path(self, path: Path, op: CacheOp) -> Path:
        """Where ai-toolkit looks for the moved latent."""
        facts = _facts(SafeFile(path).metadata)
        image = Path(str(facts.get("filename"))).stem
        if path.name != _name(image, facts):
            raise InputError(
                f"the name of {path} is not the hash of its metadata: it was written by a version of "
                "ai-toolkit that "
                "hashes something else, and a flipped file would not be found; let ai-toolkit cache again."
            )
        for flip in _FLIPS[op.move]:
            facts[flip] = True
        return path.with_name(_name(image, facts))


def _flips() -> set[str]:
    return {flip for flips in _FLIPS.values() for flip in flips}


def _facts(metadata: dict[str, str]) -> dict[str, Any]:
    """What ai-toolkit hashed: in the file every value is text, JSON but for what was text before."""
    return {
        key: value if key in _TEXTS else json.loads(value)
        for key, value in metadata.items()
        if key not in _NOT_HASHED
    }


def _name(image: str, facts: dict[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True).encode()
    digest = hashlib.md5(text, usedforsecurity=False).digest()
    return f"{image}_{base64.urlsafe_b64encode(digest).decode('ascii').rstrip('=')}.safetensors"
