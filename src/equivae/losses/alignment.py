"""Latents alike where a vision backbone sees alike, as VA-VAE asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivae.errors import InputError
from equivae.losses.backbones import load_backbone
from equivae.losses.colours import as_rgb
from equivae.losses.decoding import Contribution, Decoding
from equivae.losses.frozen import FrozenNetworkTerm
from equivae.losses.perceptual import Source
from equivae.losses.precision import in_float32
from equivae.losses.terms import TermContext
from equivae.options import Range, within

__all__ = ["AlignmentLoss", "aligned"]


class AlignmentLoss(FrozenNetworkTerm):
    r"""The latent's cells against the features that a frozen backbone has of the image at their places.

    .. math:: L = \frac{1}{N^2} \sum_{ij} \max(0, | \cos(z_i, z_j) - \cos(f_i, f_j) | - m_d)
              + \frac{1}{N} \sum_i \max(0, 1 - m_c - \cos(z_i, f_i))

    `z_i` is cell `i` of `N` of the latent, through a learned linear map to as many channels as the features
    `f` have; it learns along with the VAE and is not part of the VAE that is saved. Features are brought to
    the latent's grid (bilinear). Without units, from 0 to 4. Source: VA-VAE (arXiv 2501.01423 and
    github.com/hustvl/LightningDiT, MIT): DINOv2-L, both margins, weight .1 with `adaptive`; its images are
    brought to 224 pixels, here to whole patches.

    Args:
        backbone: see `PerceptualLoss`.
        layers: one layer, as there.
        distance_margin: `m_d`.
        cosine_margin: `m_c`.
        adaptive: scale the term to the gradient of the others at the encoder's last layer, as VA-VAE does.

    Raises `InputError`, before any work, for a backbone that cannot be had and layers that it does not have.

    ```python
    import torch

    from equivae.losses.alignment import aligned

    cells = torch.randn(2, 8, 4, 4)
    assert aligned(cells, 3 * cells, distance_margin=0.0, cosine_margin=0.0) < 1e-5
    ```
    """

    name: ClassVar[str] = "alignment"
    only_latents: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, Range]] = {
        "distance_margin": within(0, 2),
        "cosine_margin": within(0, 2),
    }
    projection: nn.Conv2d | None

    def __init__(
        self,
        *,
        backbone: Source,
        layers: Sequence[Union[int, str]] | None = None,
        distance_margin: float = 0.25,
        cosine_margin: float = 0.5,
        adaptive: bool = True,
    ) -> None:
        margins = {"distance_margin": distance_margin, "cosine_margin": cosine_margin}
        options = {"backbone": backbone, "layers": layers, "adaptive": adaptive, **margins}
        self.check_options(options)
        super().__init__(load_backbone(backbone, layers))
        if len(self.network.layers) != 1:
            raise InputError(
                f"the term {self.name!r} compares with one layer, got {len(self.network.layers)}; choose one."
            )
        self.margins = margins
        self.adaptive = "encoder" if adaptive else None
        self.projection = None

    def forward(self, decoding: Decoding) -> list[Contribution]:
        features = self._features(decoding.images, decoding.latents.shape[-2:])
        projection = self._projection(decoding.latents.shape[1], features)
        value = aligned(projection(decoding.latents.float()), features, **self.margins)
        return [Contribution(self.name, value, 1.0)]

    def check_run(self, context: TermContext) -> None:
        super().check_run(context)
        if context.example.ndim != 4:
            raise InputError(f"the term {self.name!r} is for images; leave it out.")
        vae = context.vae
        side = [max(1, size // vae.factor) for size in context.example.shape[-2:]]
        self._projection(vae.latent_channels, self._features(context.example, torch.Size(side)))

    @torch.no_grad()
    def _features(self, images: Tensor, size: torch.Size) -> Tensor:
        """`(B, C, h, w)` of images, without the tokens that stand for no place."""
        (found,) = self.network(as_rgb(images, self.name))
        if found.ndim == 3:
            grid = [-(-side // self.network.multiple) for side in images.shape[-2:]]
            found = found[:, -grid[0] * grid[1] :].mT.unflatten(2, grid)
        return F.interpolate(found.float(), size=size, mode="bilinear", align_corners=False)

    def _projection(self, channels: int, features: Tensor) -> nn.Conv2d:
        """The linear map, made when both sides are known, the same in every run."""
        if self.projection is None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                made = nn.Conv2d(channels, features.shape[1], 1, bias=False)
            self.projection = made.to(features.device)
        return self.projection


def aligned(
    cells: Tensor, features: Tensor, *, distance_margin: float, cosine_margin: float
) -> Tensor:
    """The loss of cells and features `(B, C, h, w)`; see `AlignmentLoss`."""
    cells, features = (F.normalize(one.flatten(2), dim=1) for one in (cells, features))
    with in_float32(cells):
        apart = (cells.mT @ cells - features.mT @ features).abs()
    alike = (cells * features).sum(1)
    return F.relu(apart - distance_margin).mean() + F.relu(1 - cosine_margin - alike).mean()
