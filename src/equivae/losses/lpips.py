"""LPIPS: the learned perceptual distance, through whichever package is here."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from equivae.errors import InputError, first_line
from equivae.losses.colours import as_rgb
from equivae.losses.frozen import FrozenNetworkTerm

__all__ = ["LPIPSLoss", "Net"]

Net = Literal["alex", "vgg", "squeeze"]


class LPIPSLoss(FrozenNetworkTerm):
    r"""LPIPS, the learned perceptual distance, of every decode.

    .. math:: L = \sum_l \overline{\lVert w_l (\hat f_l(\hat x) - \hat f_l(x)) \rVert^2}

    `f_l` are features of layer `l` of a pretrained network, normalised over channels, `w_l` learned weights
    by channel; 0 for equal images, around 0.1 for what a good VAE makes of a photograph. Grey images are
    taken as colour. Needs the package `lpips`, or torchmetrics with torchvision: `pip install
    'equivae[perceptual]'`.
    Source: Zhang et al. (arXiv 1801.03924).

    Args:
        net: `"vgg"`, which VQGAN and its successors train with, `"alex"` or `"squeeze"`.

    Raises `InputError`, before any work, where no package has the network or its weights cannot be had.

    ```python
    from equivae.losses import read_terms

    assert read_terms("lpips(weight=0.5,net='vgg')") == {"lpips": {"weight": 0.5, "net": "vgg"}}
    ```
    """

    name: ClassVar[str] = "lpips"

    def __init__(self, *, net: Net = "vgg") -> None:
        self.check_options({"net": net})
        super().__init__(_network(net))

    def compare(self, decoded: Tensor, target: Tensor) -> Tensor:
        distance: Tensor = self.network(as_rgb(decoded, self.name), as_rgb(target, self.name))
        return distance.float().mean()


def _network(net: str) -> Any:
    """A module from two batches in [-1, 1] to distances."""
    failures = []
    try:
        from lpips import LPIPS

        return LPIPS(net=net, verbose=False)
    except Exception as error:
        failures.append(f"lpips: {first_line(error)}")
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity(net_type=net).net  # type: ignore[arg-type]
    except Exception as error:
        failures.append(f"torchmetrics: {first_line(error)}")
    raise InputError(
        f"the term 'lpips' needs a network and its weights, which are not available ({'; '.join(failures)}); "
        "pip install 'equivae[perceptual]', or take the term 'perceptual' with a backbone in a folder."
    )
