"""LightningDiT's safetensors shards: `latents` and `latents_flip` `(N, c, h, w)` with `labels`.

Its loader picks one of the two by chance and fails where `latents_flip` is missing. Layout: LightningDiT,
extract_features.py and datasets/img_latent_dataset.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from equivae.caches.layout import CacheFormat, Job, State, Target
from equivae.caches.tensors import SafeFile
from equivae.caches.writing import replace_file, stamp

__all__ = ["LightningDiT"]

_MARK = "equivae_latents_flip"


class LightningDiT(CacheFormat):
    """`latents_rank00_shard000.safetensors`; every key and the metadata stay, `latents_flip` is added."""

    name = "lightningdit"
    looks = "LightningDiT's `latents_rank00_shard000.safetensors` with `latents` and `labels`"
    moves = ("hflip",)
    scaled = False

    def owns(self, path: Path) -> bool:
        return path.suffix == ".safetensors" and {"latents", "labels"} <= set(SafeFile(path).shapes)

    def read(self, path: Path, channels: int | None = None) -> list[Tensor]:
        return [SafeFile(path).part("latents", 0, 32)]

    def state(self, path: Path, target: Target) -> State:
        file = SafeFile(path)
        if "latents_flip" not in file.shapes:
            return State.MISSING
        if _MARK not in file.metadata:
            return State.TOOL
        same = file.metadata[_MARK] == target.op.signature
        return State.DONE if same else State.OTHER_OP

    def job(self, path: Path, target: Target) -> Job:
        before, file = stamp(path), SafeFile(path)
        tensors = file.tensors()
        metadata = {**file.metadata, _MARK: target.op.signature}

        def keep(moved: Sequence[Tensor]) -> int:
            tensors["latents_flip"] = moved[0]
            replace_file(path, lambda to: SafeFile.save(tensors, to, metadata), unless=before)
            return len(moved[0])

        return Job(path, [tensors["latents"]], keep)
