"""The units of every number: images in [0, 1] after clamping, errors as their MSE, PSNR with peak 1.

And what becomes of numbers that are none: NaN stays NaN, through every mean and every difference, and
counts as the worst wherever numbers are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Union

import torch
from torch import Tensor

from equivae.errors import InputError

__all__ = [
    "Numbers",
    "difference_db",
    "finite_or_none",
    "is_finite",
    "psnr",
    "rank",
    "require_finite",
    "unit",
    "window_span",
]

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


def difference_db(a: float, b: float) -> float:
    """`a - b` of two PSNRs in dB: 0 for two infinite ones (both are perfect), NaN if either is NaN."""
    return 0.0 if a == b else a - b


def rank(value: float, *, larger_is_better: bool = True) -> float:
    """What a number counts as in a comparison: itself, or the worst there is for NaN."""
    if not math.isnan(value):
        return value
    return -math.inf if larger_is_better else math.inf


def finite_or_none(value: float) -> float | None:
    """The number, or `None` for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None


def unit(images: Tensor) -> Tensor:
    """From [-1, 1] to [0, 1], clamped, in float32; infinite values become NaN, as they are no colour."""
    values = images.float()
    clamped = values.clamp(-1, 1).add(1).div(2)
    return torch.where(values.isfinite(), clamped, torch.nan)


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


def window_span(cells: int, share: float, place: float) -> tuple[int, int]:
    """The first cell of a window along an axis, and how many there are: at least one."""
    kept = max(1, int(cells * share + 0.5))
    return int((cells - kept) * place + 0.5), kept
