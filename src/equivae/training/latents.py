"""The latents of a frozen encoder, computed once: in memory, or memory-mapped on disk when large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from equivae.autoencoder import Autoencoder
from equivae.data.sources import ImageDataset, collate

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
    """The modes of all posteriors, float32 `(N, c, h, w)`; above `limit_mb` as a file in `folder`."""
    from tqdm.auto import tqdm

    latents: np.ndarray | None = None
    done = 0
    loader = DataLoader(images, batch_size, collate_fn=collate)  # type: ignore[arg-type]
    for batch in tqdm(loader, desc="latents", disable=not progress, leave=False):
        encoded = vae.encode(batch.to(vae.device, vae.dtype)).float().cpu().numpy()
        if latents is None:
            shape = (len(images), *encoded.shape[1:])
            if 4 * np.prod(shape) > limit_mb * 2**20:
                path = folder / LATENTS_FILE
                latents = np.lib.format.open_memmap(path, "w+", np.float32, shape)
            else:
                latents = np.empty(shape, np.float32)
        latents[done : done + len(encoded)] = encoded
        done += len(encoded)
    assert latents is not None
    return latents
