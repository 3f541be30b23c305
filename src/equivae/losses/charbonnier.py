"""The Charbonnier error: an absolute error that is smooth at nought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from equivae.losses.terms import ImageTerm
from equivae.options import Range, above

__all__ = ["CharbonnierLoss"]


class CharbonnierLoss(ImageTerm):
    r"""An absolute error that is smooth at nought.

    .. math:: L = \frac{1}{N} \sum_p \left( \sqrt{(\hat x_p - x_p)^2 + \epsilon^2} - \epsilon \right)

    Quadratic for errors well below `epsilon`, absolute above it; 0 where nothing is wrong. In units of images
    in [-1, 1]. Source: Charbonnier et al., Two deterministic half-quadratic regularization algorithms for
    computed imaging (1994); for images Lai et al. (arXiv 1710.01992), with the same `epsilon`.

    Args:
        epsilon: where the two meet.

    ```python
    import torch

    from equivae.losses import CharbonnierLoss

    term = CharbonnierLoss(epsilon=4.0)
    assert term.compare(torch.full((1, 3, 8, 8), 3.0), torch.zeros(1, 3, 8, 8)) == 1
    ```
    """

    name: ClassVar[str] = "charbonnier"
    ranges: ClassVar[Mapping[str, Range]] = {"epsilon": above(0)}

    def __init__(self, *, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.check_options({"epsilon": epsilon})
        self.epsilon = epsilon

    def compare(self, decoded: Tensor, target: Tensor) -> Tensor:
        squared = (decoded.float() - target.float()).square()
        return (squared + self.epsilon**2).sqrt().sub(self.epsilon).mean()
