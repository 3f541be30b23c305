"""How sure a number is: median, worst image and bootstrap intervals over the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivae.evaluation.results import Spread

__all__ = ["CERTAIN", "FEW", "RESAMPLES", "Number", "Resampling", "difference_of", "psnr_of"]

Floats = NDArray[np.float64]
Number = Callable[[Floats], Floats]

RESAMPLES = 1_000
CERTAIN = 100
"""So many images it takes for a 95% interval to cover about what it says."""
FEW = 8
"""Below so many images an interval is mostly the shape that is assumed, and hardly what was measured."""
_FARTHEST = 1.5  # ends of an interval, in those of Student's t
_STUDENTISED = 4_000  # images up to which the draws are kept; above, both kinds of interval agree
_CHUNK = 4_000_000  # weights held at a time
_STEP = 1e-4  # of the slope, relative


def psnr_of(mse: Floats) -> Floats:
    """`units.psnr` of an array."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-10 * np.log10(mse), dtype=np.float64)


def difference_of(a: Floats, b: Floats) -> Floats:
    """`units.difference_db` of two arrays: 0 where both are infinite, NaN where one is NaN."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, a - b)


class Resampling:
    """One set of bootstrap resamples for all numbers, so that differences between them are paired.

    Args:
        names: of the images.
        columns: numbers of every image by name.
        seed: of the draw.
        resamples: how many.
    """

    def __init__(
        self,
        names: Sequence[str],
        columns: Mapping[str, Sequence[float]],
        seed: int,
        resamples: int = RESAMPLES,
    ) -> None:
        self.names = list(names)
        self._place = {key: i for i, key in enumerate(columns)}
        self._data = np.asarray(list(columns.values()), dtype=np.float64).T
        count = len(self.names)
        random = np.random.default_rng(seed)
        step = max(1, _CHUNK // count)
        means, draws = [], []
        for start in range(0, resamples, step):
            size = min(step, resamples - start)
            weights = random.multinomial(count, np.full(count, 1 / count), size=size)
            with np.errstate(invalid="ignore"):  # infinite numbers have no spread
                means.append(weights @ self._data / count)
            if count <= _STUDENTISED:
                draws.append(weights.astype(np.uint16))
        self._means = np.concatenate(means)
        self._draws = np.concatenate(draws) if draws else None

    def spread(
        self,
        keys: Sequence[str],
        number: Number,
        *,
        larger_is_better: bool,
        within: tuple[float, float] = (-math.inf, math.inf),
    ) -> Spread:
        """The spread of a number that follows from the means of some columns.

        Args:
            keys: of those columns.
            number: from means `(..., columns)` to the number `(...,)`.
            larger_is_better: which end is the worst.
            within: where the number can lie; the interval ends there.
        """
        chosen = [self._place[key] for key in keys]
        data = self._data[:, chosen]
        value, each = float(number(data.mean(0))), number(data)
        # NaN is the worst to both.
        worst = int(each.argmin() if larger_is_better else each.argmax())
        median = low = high = math.nan
        if not math.isnan(value):
            median = _quantiles(each, (0.5,))[0]
            low, high = (
                min(max(end, within[0]), within[1]) for end in self._interval(chosen, number, value)
            )
        return Spread(value, median, low, high, float(each[worst]), self.names[worst])

    def _interval(self, chosen: list[int], number: Number, value: float) -> tuple[float, float]:
        """95%, by the studentised bootstrap (Efron and Tibshirani, 1993, chapter 12).

        `(number of a resample - value) / its own standard error` is what is resampled, since with few
        images the errors' mean and its uncertainty go together: percentiles alone are too narrow. A resample
        of nearly one image alone has next to no standard error, and its ratio would put an end hundreds of dB
        away; so no end is farther than 1.5 times that of Student's t, which costs up to three points of
        coverage over four images and next to nothing over 24. By Student's t itself where there are fewer
        than four images; by percentiles where nothing varies, the number is infinite, or there are so many
        images that it makes no difference.
        """
        count, (data, means) = len(self.names), (self._data[:, chosen], self._means[:, chosen])
        values = number(means)
        own = float(_standard_errors(data, None, data.mean(0)[None], number)[0])
        if self._draws is None or not (math.isfinite(value) and math.isfinite(own) and own > 0):
            low, high = _quantiles(values)
            return low, high
        errors = _standard_errors(data, self._draws, means, number)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(
                errors > 0, (values - value) / errors, np.inf * np.sign(values - value)
            )
        ratios = np.where(np.isnan(ratios), 0.0, ratios)
        below, above = _quantiles(ratios)
        student = _student(count - 1)
        if count < 4 or not (math.isfinite(below) and math.isfinite(above)):
            below, above = -student, student
        above = min(max(above, 0.0), _FARTHEST * student)
        below = max(min(below, 0.0), -_FARTHEST * student)
        return value - above * own, value - below * own


def _standard_errors(
    data: Floats, draws: NDArray[np.uint16] | None, means: Floats, number: Number
) -> Floats:
    """Of a number of means, to first order, in every resample `(B, columns)`; in the data without draws."""
    count = len(data)
    if count < 2:
        return np.zeros(len(means))
    centred = data - data.mean(0)
    shift = means - data.mean(0)
    slopes = [_slope(number, means, column) for column in range(means.shape[1])]
    variance: Any = 0.0
    with np.errstate(invalid="ignore"):
        for i, a in enumerate(slopes):
            for j, b in enumerate(slopes):
                products = centred[:, i] * centred[:, j]
                second = products.mean() if draws is None else draws @ products / count
                variance = variance + a * b * (second - shift[:, i] * shift[:, j])
        return np.asarray(np.sqrt(np.maximum(variance, 0.0) / (count - 1)), dtype=np.float64)


def _slope(number: Number, means: Floats, column: int) -> Floats:
    """The derivative of a number by one of its means; NaN where it has none."""
    up, down = means.copy(), means.copy()
    up[:, column] *= 1 + _STEP
    down[:, column] *= 1 - _STEP
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (number(up) - number(down)) / (up[:, column] - down[:, column])
    return np.asarray(slope, dtype=np.float64)


def _student(freedom: int) -> float:
    """The 97.5% quantile of Student's t, as Abramowitz and Stegun expand it (26.7.5)."""
    exact = {1: 12.7062, 2: 4.3027, 3: 3.1824}
    if freedom in exact:
        return exact[freedom]
    z = 1.959964
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _quantiles(values: Floats, at: tuple[float, ...] = (0.025, 0.975)) -> list[float]:
    """Interpolated between neighbours, but not between infinite ones, which have no difference."""
    ordered = np.sort(values)
    found = []
    for share in at:
        place = share * (len(ordered) - 1)
        below, above = float(ordered[int(np.floor(place))]), float(ordered[int(np.ceil(place))])
        found.append(below if below == above else below + (above - below) * (place % 1))
    return found
