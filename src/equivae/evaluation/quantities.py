"""What of the images' numbers becomes a number of the set: the PSNR of mean errors, gaps, plain means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from equivae.evaluation.latent_metrics import LATENT_METRICS, PerImage
from equivae.evaluation.latent_metrics.base import psnr_of_mean
from equivae.evaluation.statistics import Floats, Number, difference_of, psnr_of

__all__ = ["Quantity", "quantities"]

_ANYWHERE = (-math.inf, math.inf)
_SSIM = (-1.0, 1.0)
_PSNR = (0.0, math.inf)  # of errors in [0, 1]


@dataclass(frozen=True)
class Quantity:
    """A number that follows from the means of some columns of `Metrics.per_image`.

    Attributes:
        key: under which its spread and its difference stand.
        columns: of `per_image`.
        number: from means `(..., columns)` to the number `(...,)`.
        larger_is_better: which end is the better.
        within: where it can lie.
    """

    key: str
    columns: tuple[str, ...]
    number: Number
    larger_is_better: bool = True
    within: tuple[float, float] = _ANYWHERE


def quantities(columns: Iterable[str], transforms: Iterable[str]) -> Iterator[Quantity]:
    """All that these columns give, in the order of the tables."""
    there = set(columns)
    for one in [*_all(transforms)]:
        if there.issuperset(one.columns):
            yield one


def _all(transforms: Iterable[str]) -> Iterator[Quantity]:
    yield Quantity("reconstruction_psnr", ("reconstruction_mse",), _psnr, within=_PSNR)
    yield _plain("reconstruction_ssim", within=_SSIM)
    yield _plain("imagenet/reconstruction_psnr", within=_PSNR)
    yield _plain("imagenet/reconstruction_ssim", within=_SSIM)
    for name in transforms:
        trip, error = f"round_trip_mse/{name}", f"encoder_relative_error/{name}"
        yield Quantity(f"round_trip_psnr/{name}", (trip,), _psnr, within=_PSNR)
        yield _plain(f"round_trip_ssim/{name}", within=_SSIM)
        gap = (f"reconstruction_mse/{name}", trip)
        yield Quantity(f"equivariance_gap_db/{name}", gap, _gap, larger_is_better=False)
        yield _plain(error, larger_is_better=False, within=(0.0, math.inf))
        yield _plain(f"imagenet/round_trip_psnr/{name}", within=_PSNR)
        yield _plain(f"imagenet/round_trip_ssim/{name}", within=_SSIM)
        yield _plain(f"imagenet/gap_db/{name}", larger_is_better=False)
    for metric in LATENT_METRICS.values():
        if isinstance(metric, PerImage):
            number = _psnr if metric.total is psnr_of_mean else _mean
            better = metric.larger_is_better is not False
            key = f"latent/{metric.name}"
            yield Quantity(key, (key,), number, better, metric.within)


def _plain(
    key: str, *, larger_is_better: bool = True, within: tuple[float, float] = _ANYWHERE
) -> Quantity:
    return Quantity(key, (key,), _mean, larger_is_better, within)


def _mean(means: Floats) -> Floats:
    return means[..., 0]


def _psnr(means: Floats) -> Floats:
    return psnr_of(means[..., 0])


def _gap(means: Floats) -> Floats:
    return difference_of(psnr_of(means[..., 0]), psnr_of(means[..., 1]))
