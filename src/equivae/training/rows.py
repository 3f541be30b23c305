"""What a frozen model gives for every image, a row for each: computed once, in memory or in a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from equivae.autoencoder import Autoencoder, measuring
from equivae.data.sources import ImageDataset, collate
from equivae.errors import WriteError
from equivae.files.writing import reserve
from equivae.processes import on_main_process, process_state

__all__ = ["Rows", "floats_of"]

_STORED: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype("<f4"),
    torch.bfloat16: np.dtype("<i2"),
}
"""How numpy, which knows no bf16, holds the numbers."""


def floats_of(row: np.ndarray) -> Tensor:
    """A row as float32, whatever it is stored as."""
    found = torch.from_numpy(np.array(row))
    return found if found.is_floating_point() else found.view(torch.bfloat16).float()


@dataclass
class Rows:
    """What a call gives for every image of a set.

    Attributes:
        name: of what it is, in files and messages.
        vae: the model behind the call, which runs within `measuring`.
        images: the set.
        call: takes a batch `(B, C, H, W)` in [-1, 1], on the CPU.
        batch_size: images per call.
        dtype: what is stored, float32 or bf16.
        progress: show a bar.
    """

    name: str
    vae: Autoencoder
    images: ImageDataset
    call: Callable[[Tensor], Tensor]
    batch_size: int
    dtype: torch.dtype
    progress: bool

    @cached_property
    def first(self) -> Tensor:
        """The first image's row, float32."""
        with measuring(self.vae.module):
            return self.call(self.images[0][None])[0].float().cpu()

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.images), *self.first.shape

    @property
    def size(self) -> int:
        """In bytes."""
        return _STORED[self.dtype].itemsize * math.prod(self.shape)

    def compute(self, path: Path | None) -> np.ndarray:
        """All rows, in memory or in a new file.

        The file is one for all processes, and each computes its share; in memory every process has its own.
        """
        from tqdm.auto import tqdm

        starts = list(range(0, len(self.images), self.batch_size))
        rows: np.ndarray
        if path is None:
            rows = np.empty(self.shape, _STORED[self.dtype])
        else:
            rows, starts = self._shared(path, starts)
        batches = [list(range(s, min(s + self.batch_size, len(self.images)))) for s in starts]
        loader = DataLoader(self.images, batch_sampler=batches, collate_fn=collate)  # type: ignore[arg-type]
        bar = tqdm(loader, desc=self.name, disable=not self.progress, leave=False)
        with measuring(self.vae.module):
            for indices, batch in zip(batches, bar, strict=True):
                rows[indices] = self._stored(self.call(batch))
        if isinstance(rows, np.memmap):
            rows.flush()
            process_state().wait_for_everyone()
        return rows

    def _shared(self, path: Path, starts: list[int]) -> tuple[np.ndarray, list[int]]:
        """The file, and the share of this process."""
        on_main_process(lambda: self._allocate(path))
        process_state().wait_for_everyone()
        with process_state().split_between_processes(starts) as mine:
            return np.lib.format.open_memmap(path, "r+"), mine

    def _stored(self, computed: Tensor) -> np.ndarray:
        kept = computed.to("cpu", self.dtype)
        found: np.ndarray = (
            kept.view(torch.int16) if self.dtype == torch.bfloat16 else kept
        ).numpy()
        return found

    def _allocate(self, path: Path) -> None:
        """A file of zeros; `WriteError` where the disk has no room, before a run has begun."""
        descr = np.lib.format.dtype_to_descr(_STORED[self.dtype])
        header = {"descr": descr, "fortran_order": False, "shape": self.shape}
        try:
            with path.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                file.flush()
                reserve(file, file.tell() + self.size)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise WriteError(
                f"{self.size / 2**20:.0f} MiB of {self.name} cannot be kept in {path.parent}: "
                f"{error.strerror or error}; make room there, or raise latent_cache_mb, without a "
                "latent_cache_dir, to keep them in memory."
            ) from error
