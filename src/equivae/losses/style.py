"""How strong the features of a pretrained backbone are, and which come together, wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Union

import torch
from torch import Tensor

from equivae.losses.backbones import load_backbone
from equivae.losses.colours import as_rgb
from equivae.losses.frozen import FrozenNetworkTerm
from equivae.losses.perceptual import Source
from equivae.losses.precision import in_float32

__all__ = ["StyleLoss", "gram"]

_LEAST = 0.1  # of a layer's strength, so that channels which see nothing do not count


class StyleLoss(FrozenNetworkTerm):
    r"""The difference of the Gram matrices of a pretrained backbone's features, a mean over `n` layers.

    .. math:: L = \frac{1}{n} \sum_l \frac{1}{C_l^2} \sum_{ij} (G^l_{ij}(D(\rho_t z)) - G^l_{ij}(T_t x))^2,
              \quad G^l_{ij}(y) = \frac{1}{P_l} \sum_p \frac{f^l_{ip}(y) f^l_{jp}(y)}{r^l_i r^l_j}

    `f^l_{ip}` is channel `i` of the output of layer `l` at place `p`, `r^l_i` the root of its mean square
    over the places of all targets (and a tenth of that of the layer). Without units; 0 for equal
    images, and for images of the same textures at other places. Squared errors of pixels or features ask
    for a mean of all plausible textures, which has less of every one; this asks for as much of them as the
    image has. Outside the transform's mask the network sees the image in both. Sources: Gatys et al. (arXiv
    1508.06576) and Johnson et al. (1603.08155), there without `r`; against blur Reda et al. (FILM,
    2202.04901).

    Args:
        backbone: see `PerceptualLoss`.
        layers: see `PerceptualLoss`; early ones see fine detail.

    Raises `InputError`, before any work, for a backbone that cannot be had and layers that it does not have.

    ```python
    import torch

    from equivae.losses import make_terms

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    [(weight, term)] = make_terms({"style": {"weight": 0.5, "backbone": network, "layers": ("1",)}})
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    assert term.compare(images, images) == 0 < term.compare(blurred, images)
    ```
    """

    name: ClassVar[str] = "style"

    def __init__(
        self, *, backbone: Source, layers: Sequence[Union[int, str]] | None = None
    ) -> None:
        self.check_options({"backbone": backbone, "layers": layers})
        super().__init__(load_backbone(backbone, layers))

    def compare(self, decoded: Tensor, target: Tensor) -> Tensor:
        seen = self.network(as_rgb(decoded, self.name))
        with torch.no_grad():
            wanted = self.network(as_rgb(target, self.name))
        values = []
        for one, other in zip(seen, wanted, strict=True):
            one, other = (
                f.float().flatten(2) if f.ndim == 4 else f.float().mT for f in (one, other)
            )
            power = other.square().mean(
                (0, 2), keepdim=True
            )  # an image's own would favour the weak
            strength = (power + _LEAST**2 * power.mean(1, keepdim=True)).sqrt().clamp_min(1e-12)
            values.append((gram(one / strength) - gram(other / strength)).square().mean())
        return torch.stack(values).mean()


def gram(features: Tensor) -> Tensor:
    """`(B, C, C)`: the mean product of every two channels over the places of features `(B, C, places)`."""
    with in_float32(features):
        return features @ features.mT / features.shape[-1]
