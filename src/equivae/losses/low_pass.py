"""The squared error of what is left after a blur."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from equivae.losses.precision import in_float32
from equivae.losses.terms import ImageTerm
from equivae.options import Range, within

__all__ = ["LowPassMSELoss"]

_LARGEST = 64


class LowPassMSELoss(ImageTerm):
    r"""The squared error of what is left after a Gaussian blur `G`.

    .. math:: L = \frac{1}{N} \sum_p (G \hat x - G x)_p^2

    It asks for the right colours and shapes and leaves fine detail to other terms. In squared units of images
    in [-1, 1]; at the edges the outermost pixels go on. Source: equivae.

    Args:
        sigma: of the blur, in pixels.

    ```python
    import torch

    from equivae.losses import LowPassMSELoss

    checkers = torch.ones(1, 3, 16, 16)
    checkers[..., ::2, ::2] = checkers[..., 1::2, 1::2] = -1
    assert LowPassMSELoss(sigma=2.0).compare(checkers, torch.zeros(1, 3, 16, 16)) < 0.05
    ```
    """

    name: ClassVar[str] = "low_pass_mse"
    needs_grid: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, Range]] = {"sigma": within(0.1, _LARGEST)}

    def __init__(self, *, sigma: float = 2.0) -> None:
        super().__init__()
        self.check_options({"sigma": sigma})
        self.sigma = sigma

    def compare(self, decoded: Tensor, target: Tensor) -> Tensor:
        from kornia.filters import filter2d_separable, get_gaussian_kernel1d

        error = (decoded.float() - target.float()).flatten(1, -3)  # frames beside channels
        reach = round(3 * self.sigma)
        error = F.pad(error, (reach,) * 4, mode="replicate")
        kernel = get_gaussian_kernel1d(2 * reach + 1, self.sigma, device=error.device)
        with in_float32(error):
            blurred: Tensor = filter2d_separable(error, kernel, kernel, padding="valid")
        return blurred.square().mean()
