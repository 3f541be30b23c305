"""How sure a number is: median, worst image and bootstrap intervals over the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equivae.evaluation.results import Spread

__all__ = ["Resampling", "psnr_of"]

Floats = NDArray[np.float64]
RESAMPLES = 1_000
_CHUNK = 4_000_000  # weights held at a time


def psnr_of(mse: Floats) -> Floats:
    """`quality.psnr` of an array."""
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(mse), dtype=np.float64)


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
        found = []
        for start in range(0, resamples, step):
            size = min(step, resamples - start)
            weights = random.multinomial(count, np.full(count, 1 / count), size=size)
            found.append(weights @ self._data / count)
        self._means = np.concatenate(found)

    def spread(
        self, keys: Sequence[str], number: Callable[[Floats], Floats], *, larger_is_better: bool
    ) -> Spread:
        """The spread of a number that follows from the means of some columns.

        Args:
            keys: of those columns.
            number: from means `(..., columns)` to the number `(...,)`.
            larger_is_better: which end is the worst.
        """
        chosen = [self._place[key] for key in keys]
        data, means = self._data[:, chosen], self._means[:, chosen]
        # Infinite PSNRs of perfect images leave differences without a value: no difference at all.
        with np.errstate(invalid="ignore"):
            value: Any = _no_nan(number(data.mean(0)))
            each = _no_nan(number(data))
            low, high = _quantiles(_no_nan(number(means)))
        worst = int(each.argmin() if larger_is_better else each.argmax())
        return Spread(
            value=float(value),
            median=_quantiles(each, (0.5,))[0],
            low=low,
            high=high,
            worst=float(each[worst]),
            worst_image=self.names[worst],
        )


def _no_nan(values: Floats) -> Floats:
    return np.where(np.isnan(values), 0.0, values)


def _quantiles(values: Floats, at: tuple[float, ...] = (0.025, 0.975)) -> list[float]:
    """Interpolated between neighbours, but not between infinite ones, which have no difference."""
    ordered = np.sort(values)
    found = []
    for share in at:
        place = share * (len(ordered) - 1)
        below, above = float(ordered[int(np.floor(place))]), float(ordered[int(np.ceil(place))])
        found.append(below if below == above else below + (above - below) * (place % 1))
    return found
