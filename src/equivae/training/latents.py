"""The latents of a frozen encoder, computed once: in memory, or memory-mapped on disk when large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from equivae.autoencoder import Autoencoder
from equivae.data.sources import ImageDataset, collate
from equivae.processes import process_state

__all__ = ["LATENTS_FILE", "WithLatents", "cache_latents"]

LATENTS_FILE = "latents.npy"


class WithLatents(Dataset[dict[str, Tensor]]):
    """Images beside their latents: items `{"images": (C, H, W), "latents": (c, h, w)}`."""

    def __init__(self, images: ImageDataset, latents: np.ndarray | None) -> None:
        self.images, self.latents = images, latents

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = {"images": self.images[index]}
        if self.latents is not None:
            item["latents"] = torch.from_numpy(np.array(self.latents[index]))
        return item


@torch.no_grad()
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
    from tqdm.auto import tqdm

    some = vae.encode(images[0][None].to(vae.device, vae.dtype))
    shape = (len(images), *some.shape[1:])
    starts = list(range(0, len(images), batch_size))
    latents: np.ndarray
    on_disk = 4 * np.prod(shape) > limit_mb * 2**20
    if on_disk:
        state = process_state()
        path = folder / LATENTS_FILE
        if state.is_main_process:
            np.lib.format.open_memmap(path, "w+", np.float32, shape)
        state.wait_for_everyone()
        latents = np.lib.format.open_memmap(path, "r+")
        with state.split_between_processes(starts) as mine:
            starts = mine
    else:
        latents = np.empty(shape, np.float32)
    batches = [list(range(s, min(s + batch_size, len(images)))) for s in starts]
    loader = DataLoader(images, batch_sampler=batches, collate_fn=collate)  # type: ignore[arg-type]
    bar = tqdm(loader, desc="latents", disable=not progress, leave=False)
    for indices, batch in zip(batches, bar, strict=True):
        encoded = vae.encode(batch.to(vae.device, vae.dtype))
        latents[indices] = encoded.float().cpu().numpy()
    if isinstance(latents, np.memmap):
        latents.flush()
        process_state().wait_for_everyone()
    return latents
