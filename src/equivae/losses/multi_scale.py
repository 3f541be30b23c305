"""The squared error at several sizes of the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from equivae.errors import InputError
from equivae.losses.terms import ImageTerm, TermContext
from equivae.options import Range, at_least

__all__ = ["MultiScaleMSELoss"]


class MultiScaleMSELoss(ImageTerm):
    r"""The squared error at several sizes of the image, each half of the one before.

    .. math:: L = \frac{1}{S} \sum_{s=0}^{S-1} \mathrm{MSE}(\hat x_s, x_s)

    `x_s` are means over squares of `2^s` pixels a side. Errors that go on over many pixels, such as a wrong
    colour, count at every scale; errors of single pixels at the first alone. In squared units of images in
    [-1, 1]. Source: equivae.

    Args:
        scales: `S`, the full size among them.

    ```python
    import torch

    from equivae.losses import MultiScaleMSELoss

    checkers = torch.ones(1, 3, 16, 16)
    checkers[..., ::2, ::2] = checkers[..., 1::2, 1::2] = -1
    assert MultiScaleMSELoss(scales=2).compare(checkers, torch.zeros(1, 3, 16, 16)) == 0.5
    ```
    """

    name: ClassVar[str] = "multi_scale_mse"
    needs_grid: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, Range]] = {"scales": at_least(1, 12)}

    def __init__(self, *, scales: int = 4) -> None:
        super().__init__()
        self.check_options({"scales": scales})
        self.scales = scales

    def compare(self, decoded: Tensor, target: Tensor) -> Tensor:
        error = (decoded.float() - target.float()).flatten(1, -3)  # frames beside channels
        values = [error.square().mean()]
        for _ in range(self.scales - 1):
            error = F.avg_pool2d(error, 2)
            values.append(error.square().mean())
        return torch.stack(values).mean()

    def check_run(self, context: TermContext) -> None:
        super().check_run(context)
        smallest, least = context.smallest, 2 ** (self.scales - 1)
        if smallest < least:
            raise InputError(
                f"the term {self.name!r} with scales={self.scales} needs images of {least} pixels, got "
                f"{smallest}; lower scales or take larger images."
            )
