"""Latents of which the decoder sees a part: cells replaced by a learned token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equivae.errors import InputError

__all__ = ["LatentMasking"]


class LatentMasking(nn.Module):
    r"""SSVAE's latent masking (LMR, arXiv 2512.05394): `z_p \leftarrow m` for a random share of all cells.

    The decoder gets a learned token `m` in their place, and has to decode the whole image all the same.
    For every sample a ratio is drawn, and so many of its cells are masked. The token learns along with the
    decoder and is not part of the VAE that is saved.

    Args:
        channels: of the latents.
        ratios: the shares of the cells that may be masked.
        weights: how likely each of them is.

    ```python
    import torch

    from equivae.losses.masking import LatentMasking

    masking = LatentMasking(4, ratios=(0.5,), weights=(1.0,))
    z = torch.ones(2, 4, 8, 8)
    kept = (masking(z, torch.Generator().manual_seed(0)) == z).all(1)
    assert kept.flatten(1).sum(1).tolist() == [32, 32]
    ```
    """

    def __init__(
        self,
        channels: int,
        ratios: Sequence[float] = (0.0, 0.25, 0.5, 0.75),
        weights: Sequence[float] = (0.7, 0.1, 0.1, 0.1),
    ) -> None:
        super().__init__()
        if len(ratios) != len(weights) or not all(0 <= ratio < 1 for ratio in ratios):
            raise InputError("latent masking needs ratios in [0, 1), each with a weight.")
        self.ratios, self.weights = tuple(ratios), tuple(weights)
        self.token = nn.Parameter(torch.zeros(channels))

    def forward(self, latents: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents `(B, c, h, w)` with some of their cells masked; draws from a CPU generator."""
        batch, cells = latents.shape[0], latents[0, 0].numel()
        weights = torch.tensor(self.weights, dtype=torch.float64)
        drawn = torch.multinomial(weights, batch, replacement=True, generator=generator)
        counts = torch.tensor([round(self.ratios[i] * cells) for i in drawn.tolist()])
        place = torch.rand(batch, cells, generator=generator).argsort(1).argsort(1)
        hidden = (place < counts[:, None]).to(latents.device).view(batch, 1, *latents.shape[2:])
        token = self.token.to(latents.dtype).view(1, -1, *[1] * (latents.ndim - 2))
        return torch.where(hidden, token, latents)
