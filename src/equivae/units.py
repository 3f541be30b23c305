"""The units of every number: images in [0, 1] after clamping, errors as their MSE, PSNR with peak 1.

And what a number is: NaN and infinity are none, wherever numbers are compared, averaged or saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Union

import torch
from torch import Tensor

from equivae.errors import InputError

__all__ = ["Numbers", "is_finite", "psnr", "require_finite", "unit"]

Numbers = Union[float, Tensor, Iterable["Numbers"]]


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of an error in [0, 1] units (peak 1): `-10 log10(MSE)`.

    Infinite for an error of 0, NaN for one that is NaN.

    ```python
    import math

    from equivae.units import psnr

    assert psnr(0.01) == 20
    assert psnr(0.0) == math.inf
    assert math.isnan(psnr(math.nan))
    ```
    """
    if math.isnan(mse):
        return math.nan
    return -10 * math.log10(mse) if mse > 0 else math.inf


def unit(images: Tensor) -> Tensor:
    """From [-1, 1] to [0, 1], clamped, in float32."""
    return images.float().clamp(-1, 1).add(1).div(2)


def is_finite(value: Numbers) -> bool:
    """Whether a number, or every number of a tensor or of a collection, is neither NaN nor infinite.

    ```python
    from equivae.units import is_finite

    assert is_finite([0.5, 2.0])
    assert not is_finite(float("nan"))
    ```
    """
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all())
    if isinstance(value, Iterable):
        return all(map(is_finite, value))
    return math.isfinite(value)


def require_finite(value: Numbers, what: str, advice: str = "check the weights") -> None:
    """Raise `InputError` for a NaN or an infinity, in one sentence.

    Args:
        value: a number, a tensor, or a collection of those.
        what: whose numbers they are, in the plural, such as `"latents of AutoencoderKL"`.
        advice: what to do about them.

    ```python
    import torch

    from equivae.units import require_finite

    require_finite(torch.zeros(2), "latents")
    ```
    """
    if not is_finite(value):
        raise InputError(f"{what} hold NaN or infinite values; {advice}.")
