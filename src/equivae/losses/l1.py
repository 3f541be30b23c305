"""The absolute error as a term beside others."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from equivae.losses.reconstruction import l1
from equivae.losses.terms import ImageTerm

__all__ = ["L1Loss"]


class L1Loss(ImageTerm):
    r"""The mean absolute error of every decode.

    .. math:: L = \frac{1}{N} \sum_p |\hat x_p - x_p|

    In units of images in [-1, 1]; the pixel error of VQGAN (arXiv 2012.09841) and EQ-VAE.

    ```python
    import torch

    from equivae.losses import L1Loss

    assert L1Loss().compare(torch.full((1, 3, 8, 8), -0.5), torch.zeros(1, 3, 8, 8)) == 0.5
    ```
    """

    name: ClassVar[str] = "l1"

    def __init__(self) -> None:
        super().__init__()

    def compare(self, decoded: Tensor, target: Tensor) -> Tensor:
        return l1(decoded, target)
