"""What a frozen encoder gives, computed once: in memory, on disk when large, or kept for later runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from equivae.autoencoder import Autoencoder
from equivae.autoencoder.at_once import decode_in_calls, encode_in_calls
from equivae.data.sources import ImageDataset
from equivae.training.kept import kept_rows
from equivae.training.rows import Rows, floats_of

__all__ = ["WithCached", "cache_latents", "cache_taught"]


class WithCached(Dataset[dict[str, Tensor]]):
    """Images beside what is known of them: items `{"images": (C, H, W), "latents": (c, h, w), ...}`.

    Args:
        images: the images.
        cached: arrays by name, with a row for each image.
    """

    def __init__(self, images: ImageDataset, **cached: np.ndarray | None) -> None:
        self.images = images
        self.cached = {name: rows for name, rows in cached.items() if rows is not None}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, place = self.images.take(index)
        item = {"images": image}
        for name, rows in self.cached.items():
            item[name] = floats_of(rows[place])  # of the image that it is
        return item

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes, which open a file of rows by themselves."""
        files = {n: str(r.filename) for n, r in self.cached.items() if isinstance(r, np.memmap)}
        held = {name: rows for name, rows in self.cached.items() if name not in files}
        return {"images": self.images, "cached": held, "files": files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.images, self.cached = state["images"], dict(state["cached"])
        for name, file in state["files"].items():
            self.cached[name] = np.lib.format.open_memmap(file, "r")


def cache_latents(
    vae: Autoencoder,
    images: ImageDataset,
    folder: Path,
    *,
    batch_size: int = 4,
    limit_mb: int = 512,
    dtype: torch.dtype = torch.float32,
    kept: Path | None = None,
    progress: bool = True,
) -> np.ndarray:
    """The modes of all posteriors, `(N, c, h, w)`; above `limit_mb` as a file in `folder`.

    The file is one for all processes, and each encodes its share; in memory every process has its own.

    Args:
        vae: the autoencoder.
        images: of one size.
        folder: of the run.
        batch_size: images per call.
        limit_mb: of what is held in memory.
        dtype: float32, or bf16 in half the room, held as 16-bit integers; `floats_of` reads both.
        kept: a folder that runs share, for a file whatever its size; see `equivae.training.kept`.
        progress: show a bar.
    """

    def encode(batch: Tensor) -> Tensor:
        return encode_in_calls(vae, batch.to(vae.device, vae.dtype))

    rows = Rows("latents", vae, images, encode, batch_size, dtype, progress)
    if kept is not None:
        geometry = vae.geometry
        passing = geometry.decoder_parameters - geometry.encoder_parameters
        return kept_rows(rows, kept, folder, passing)
    return rows.compute(_file(rows, folder, limit_mb))


def cache_taught(
    teacher: Autoencoder,
    images: ImageDataset,
    folder: Path,
    *,
    batch_size: int = 4,
    limit_mb: int = 512,
    dtype: torch.dtype = torch.float32,
    kept: Path | None = None,
    progress: bool = True,
) -> np.ndarray:
    """What the untouched VAE makes of each image, `(N, C, H, W)`; else as `cache_latents`."""

    def reconstruct(batch: Tensor) -> Tensor:
        latents = encode_in_calls(teacher, batch.to(teacher.device, teacher.dtype))
        return decode_in_calls(teacher, latents, batch[0, 0].numel())

    rows = Rows("taught", teacher, images, reconstruct, batch_size, dtype, progress)
    if kept is not None:
        return kept_rows(rows, kept, folder, frozenset())
    return rows.compute(_file(rows, folder, limit_mb))


def _file(rows: Rows, folder: Path, limit_mb: int) -> Path | None:
    return folder / f"{rows.name}.npy" if rows.size > limit_mb * 2**20 else None
