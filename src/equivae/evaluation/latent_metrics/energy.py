"""SEC: the share of the DCT energy above a frequency."""

from __future__ import annotations

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.evaluation.latent_metrics.base import PerImage
from equivae.evaluation.roundtrip import Reconstruction
from equivae.evaluation.spectrum import block_energies

__all__ = ["SEC", "energy_above"]

THRESHOLD = 0.5


def energy_above(z: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """Share of the 8x8 block DCT's energy at `(u + v) / 14 > threshold`, without the constant, `(B,)`.

    Args:
        z: grids `(B, c, h, w)`; those below 8 have blocks of their own size.
        threshold: 1 is the highest frequency. A grid without any energy has a share of 0.
    """
    energy = torch.stack([block_energies(one).mean(0) for one in z])
    size = energy.shape[-1]
    index = torch.arange(size, device=z.device)
    band = (index[:, None] + index) / max(2 * (size - 1), 1)
    whole = energy.flatten(1).sum(1) - energy[:, 0, 0]
    above = (energy * (band > threshold)).flatten(1).sum(1)
    # What rounding leaves of a constant is no energy.
    return torch.where(whole > 1e-12 * energy[:, 0, 0].clamp_min(1e-12), above / whole, 0.0)


def _of(vae: Autoencoder, batch: Reconstruction, seeds: list[int]) -> Tensor | None:
    return energy_above(batch.z) if batch.z.ndim == 4 else None


SEC = PerImage(
    "sec",
    "spectral energy above half",
    "share of the 8x8 block DCT's energy, without the constant, at (u + v) / 14 > 0.5; mean over the images",
    "blocks as in Skorokhodov et al., 2502.14831; the threshold is ours",
    "",
    False,
    "fast",
    of=_of,
    within=(0.0, 1.0),
)
