"""What a frozen encoder gives, computed once: in memory, or memory-mapped on disk when large."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from equivae.autoencoder import Autoencoder, measuring
from equivae.data.sources import ImageDataset, collate
from equivae.errors import WriteError
from equivae.files.writing import reserve
from equivae.processes import process_state

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
            item[name] = torch.from_numpy(np.array(rows[place]))  # of the image that it is
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
    progress: bool = True,
) -> np.ndarray:
    """The modes of all posteriors, float32 `(N, c, h, w)`; above `limit_mb` as a file in `folder`.

    The file is one for all processes, and each encodes its share; in memory every process has its own.
    """

    def encode(batch: Tensor) -> Tensor:
        return vae.encode(batch.to(vae.device, vae.dtype))

    path = folder / "latents.npy"
    return _cache(vae, images, encode, path, batch_size, limit_mb, progress)


def cache_taught(
    teacher: Autoencoder,
    images: ImageDataset,
    folder: Path,
    *,
    batch_size: int = 4,
    limit_mb: int = 512,
    progress: bool = True,
) -> np.ndarray:
    """What the untouched VAE makes of each image, float32 `(N, C, H, W)`; else as `cache_latents`."""

    def reconstruct(batch: Tensor) -> Tensor:
        return teacher.decode(teacher.encode(batch.to(teacher.device, teacher.dtype)))

    path = folder / "taught.npy"
    return _cache(teacher, images, reconstruct, path, batch_size, limit_mb, progress)


def _cache(
    vae: Autoencoder,
    images: ImageDataset,
    compute: Callable[[Tensor], Tensor],
    path: Path,
    batch_size: int,
    limit_mb: int,
    progress: bool,
) -> np.ndarray:
    from tqdm.auto import tqdm

    with measuring(vae.module):
        shape = (len(images), *compute(images[0][None]).shape[1:])
        starts = list(range(0, len(images), batch_size))
        rows: np.ndarray
        if 4 * np.prod(shape) > limit_mb * 2**20:
            state = process_state()
            if state.is_main_process:
                _allocate(path, shape)
            state.wait_for_everyone()
            rows = np.lib.format.open_memmap(path, "r+")
            with state.split_between_processes(starts) as mine:
                starts = mine
        else:
            rows = np.empty(shape, np.float32)
        batches = [list(range(s, min(s + batch_size, len(images)))) for s in starts]
        loader = DataLoader(images, batch_sampler=batches, collate_fn=collate)  # type: ignore[arg-type]
        bar = tqdm(loader, desc=path.stem, disable=not progress, leave=False)
        for indices, batch in zip(batches, bar, strict=True):
            rows[indices] = compute(batch).float().cpu().numpy()
    if isinstance(rows, np.memmap):
        rows.flush()
        process_state().wait_for_everyone()
    return rows


def _allocate(path: Path, shape: tuple[int, ...]) -> None:
    """A file of zeros; `WriteError` where the disk has no room, before a run has begun."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    size = 4 * math.prod(shape)
    try:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            reserve(file, file.tell() + size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise WriteError(
            f"{size / 2**20:.0f} MiB of {path.stem} cannot be kept in {path.parent}: "
            f"{error.strerror or error}; make room there, or raise latent_cache_mb to keep them in memory."
        ) from error
