"""Structural similarity, at one scale and at five."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from equivae.errors import InputError
from equivae.losses.precision import in_float32
from equivae.losses.similarity import LEAST_SIDE, similarity
from equivae.losses.terms import ImageTerm, TermContext

__all__ = ["MSSSIMLoss", "SSIMLoss"]


class SSIMLoss(ImageTerm):
    r"""Structural dissimilarity, the mean over the windows of every decode.

    .. math:: L = 1 - \mathrm{SSIM}(\hat x, x)

    0 for equal images, at most 2; a Gaussian window of 11x11 pixels, the constants for images in [0, 1], to
    which both are brought without clamping. Source: Wang et al., Image quality assessment (2004).

    ```python
    import torch

    from equivae.losses import SSIMLoss

    images = torch.rand(1, 3, 32, 32) * 2 - 1
    assert SSIMLoss().compare(images, images).abs() < 1e-5
    ```
    """

    name: ClassVar[str] = "ssim"
    needs_grid: ClassVar[bool] = True
    _which: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()

    def compare(self, decoded: Tensor, target: Tensor) -> Tensor:
        with in_float32(decoded):
            value = similarity(decoded.float() / 2 + 0.5, target.float() / 2 + 0.5)[self._which]
        if value is None:
            raise InputError(_too_small(self.name, target))
        return 1 - value.mean()


class MSSSIMLoss(SSIMLoss):
    r"""Structural dissimilarity at five scales.

    .. math:: L = 1 - \prod_{s=1}^{5} \mathrm{SSIM}_s(\hat x, x)^{w_s}

    0 for equal images, at most 1; `w` is (.0448, .2856, .3001, .2363, .1333), every scale but the last
    counts by its contrast and structure alone. Images need 176 pixels on their shorter side. Source: Wang,
    Simoncelli, Bovik, Multiscale structural similarity (2003).

    ```python
    import torch

    from equivae.losses import MSSSIMLoss

    images = torch.rand(1, 3, 192, 192) * 2 - 1
    assert MSSSIMLoss().compare(images, images).abs() < 1e-5
    ```
    """

    name: ClassVar[str] = "ms_ssim"
    _which: ClassVar[int] = 1

    def check_run(self, context: TermContext) -> None:
        super().check_run(context)
        if context.smallest < LEAST_SIDE:
            raise InputError(_too_small(self.name, context.example))


def _too_small(name: str, images: Tensor) -> str:
    height, width = images.shape[-2:]
    return (
        f"the term {name!r} compares images of at least {LEAST_SIDE} pixels a side under every transform, "
        f"got {height}x{width}; take larger images or the term 'ssim'."
    )
