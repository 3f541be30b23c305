"""Local correlation: neighbouring latent cells alike, as SSVAE asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from equivae.errors import InputError
from equivae.losses.decoding import Contribution, Decoding
from equivae.losses.precision import in_float32
from equivae.losses.terms import Term, TermContext
from equivae.options import Range, at_least, within

__all__ = ["LocalCorrelationLoss", "local_correlation"]


class LocalCorrelationLoss(Term):
    r"""Neighbouring latent cells alike: their mean correlation `r` in small windows, up to a threshold.

    .. math:: L = \max(0, \tau - \bar r)

    The modes are normalised per channel, by mean and standard deviation over the batch through which no
    gradient passes; two cells' correlation is Pearson's over the channels; the mean is over all pairs of
    cells in windows of `window x window` that do not overlap. Without units. Cells beyond the last whole
    window are left out. Source: SSVAE's LCR (arXiv 2512.05394; window 2, threshold .75, weight .1 x .02
    with `adaptive`).

    Args:
        threshold: tau; correlations above it cost nothing.
        window: cells along a side.
        adaptive: scale the term to the gradient of the others at the encoder's last layer, as SSVAE does.

    ```python
    import torch

    from equivae.losses.local_correlation import local_correlation

    alike = torch.randn(1, 8, 1, 1).expand(-1, -1, 4, 4)
    assert (local_correlation(alike, 2) - 1).abs() < 1e-5
    ```
    """

    name: ClassVar[str] = "lcr"
    needs_grid: ClassVar[bool] = True
    only_latents: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, Range]] = {"threshold": within(-1, 1), "window": at_least(2, 64)}

    def __init__(self, *, threshold: float = 0.75, window: int = 2, adaptive: bool = False) -> None:
        super().__init__()
        self.check_options({"threshold": threshold, "window": window, "adaptive": adaptive})
        self.threshold, self.window = threshold, window
        self.adaptive = "encoder" if adaptive else None

    def forward(self, decoding: Decoding) -> list[Contribution]:
        latents = decoding.modes().float()
        with torch.no_grad():
            cells = latents.transpose(0, 1).flatten(1)
            shape = (1, -1, *[1] * (latents.ndim - 2))
            mean, spread = cells.mean(1).view(shape), cells.std(1).view(shape)
        normal = (latents - mean) / (spread + 1e-6)
        correlation = local_correlation(normal, self.window)
        return [Contribution(self.name, F.relu(self.threshold - correlation), 1.0)]

    def check_run(self, context: TermContext) -> None:
        super().check_run(context)
        side = min(context.example.shape[-2:]) // context.vae.factor
        if context.example.ndim != 4 or side < self.window or context.vae.latent_channels < 2:
            raise InputError(
                f"the term {self.name!r} compares the cells in windows of {self.window}x{self.window} over "
                "two latent channels or more, which these latents do not have; leave it out or take larger "
                "images."
            )


def local_correlation(latents: Tensor, window: int) -> Tensor:
    """Mean of Pearson's correlation over the channels of all pairs of cells in one window, `(B, c, h, w)`."""
    channels = latents.shape[1]
    cells = F.unfold(latents, window, stride=window)  # (B, c * cells, windows)
    cells = rearrange(cells, "b (c n) w -> (b w) n c", c=channels)
    cells = F.normalize(cells - cells.mean(-1, keepdim=True), dim=-1, eps=1e-8)
    with in_float32(cells):
        alike = cells @ cells.transpose(1, 2)
    pairs = torch.ones_like(alike[0], dtype=torch.bool).triu(1)
    return alike[:, pairs].mean()
