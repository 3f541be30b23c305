"""Distances between the features of a pretrained backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivae.losses.backbones import load_backbone
from equivae.losses.colours import as_rgb
from equivae.losses.frozen import FrozenNetworkTerm

__all__ = ["PerceptualLoss"]

Source = Union[nn.Module, str, Path]


class PerceptualLoss(FrozenNetworkTerm):
    r"""The distance of the features of a pretrained backbone, a mean over `n` layers.

    .. math:: L = \frac{1}{n} \sum_l \overline{\lVert \hat f_l(D(\rho_t z)) - \hat f_l(T_t x) \rVert^2}

    `f_l` is the output of layer `l`, divided at every place by its norm over channels; the mean is over
    places. 0 for equal images, at most 4. With `distance="l1"` it is the mean absolute difference of the
    features as they are. Outside the transform's mask the network sees the image in both. The backbone
    never learns and is saved with no run. Sources: Johnson et al. (arXiv 1603.08155); Zhang et al.
    (1801.03924); ConvNeXt features as in HakuLatent, DINOv2 as in VA-VAE (which compares latents).

    Args:
        backbone: a folder with `config.json` and `model.safetensors` of transformers, timm or diffusers, a
            repository of that kind on the hub, or a module that takes images `(B, 3, H, W)`; transformers
            and timm come with `pip install 'equivae[perceptual]'`.
        layers: places in the list of features that transformers and timm give, such as `(1, 2)`, or names of
            parts as in `named_modules`; the last feature unless given.
        distance: `"normalised"` or `"l1"`.

    Raises `InputError`, before any work, for a backbone that cannot be had and layers that it does not have.

    ```python
    import torch

    from equivae.losses import PerceptualLoss

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3))
    term = PerceptualLoss(backbone=network, layers=("0", "2"))
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert term.compare(images, images) == 0 < term.compare(-images, images)
    ```
    """

    name: ClassVar[str] = "perceptual"

    def __init__(
        self,
        *,
        backbone: Source,
        layers: Sequence[Union[int, str]] | None = None,
        distance: Literal["normalised", "l1"] = "normalised",
    ) -> None:
        self.check_options({"backbone": backbone, "layers": layers, "distance": distance})
        super().__init__(load_backbone(backbone, layers))
        self.distance = distance

    def compare(self, decoded: Tensor, target: Tensor) -> Tensor:
        seen = self.network(as_rgb(decoded, self.name))
        with torch.no_grad():
            wanted = self.network(as_rgb(target, self.name))
        values = [self._apart(a.float(), b.float()) for a, b in zip(seen, wanted, strict=True)]
        return torch.stack(values).mean()

    def _apart(self, seen: Tensor, wanted: Tensor) -> Tensor:
        if self.distance == "l1":
            return F.l1_loss(seen, wanted)
        axis = 1 if seen.ndim == 4 else -1
        seen, wanted = (F.normalize(one, dim=axis, eps=1e-6) for one in (seen, wanted))
        return (seen - wanted).square().sum(axis).mean()
