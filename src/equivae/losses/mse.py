"""The squared error as a term beside others."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from equivae.losses.reconstruction import mse
from equivae.losses.terms import ImageTerm

__all__ = ["MSELoss"]


class MSELoss(ImageTerm):
    r"""The mean squared error of every decode.

    .. math:: L = \frac{1}{N} \sum_p (\hat x_p - x_p)^2

    In squared units of images in [-1, 1]. With `reconstruction="none"` its weight is that of the error beside
    the other terms, as in `reconstruction="none", terms={"mse": 0.25, "lpips": 0.3}`.

    ```python
    import torch

    from equivae.losses import MSELoss

    assert MSELoss().compare(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)) == 1
    ```
    """

    name: ClassVar[str] = "mse"

    def __init__(self) -> None:
        super().__init__()

    def compare(self, decoded: Tensor, target: Tensor) -> Tensor:
        return mse(decoded, target)
