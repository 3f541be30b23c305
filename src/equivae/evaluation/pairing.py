"""Whether two VAEs differ by more than noise: differences paired image by image, intervals and tests."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from equivae.errors import InputError
from equivae.evaluation.quantities import Quantity, quantities
from equivae.evaluation.results import Metrics
from equivae.evaluation.statistics import Floats, Resampling, difference_of

__all__ = ["SIGNIFICANT", "Difference", "differences", "holm"]

SIGNIFICANT = 0.05
_EXACT = 13  # images up to which all exchanges are looked at
_EXCHANGES = 9_999
_LEAST = 999
_WEIGHTS = 50_000_000
_AT_ONCE = 4_000_000
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Difference:
    """How a number differs between two VAEs on the same images.

    Attributes:
        key: of the number, as in `Metrics.spreads`.
        value: of the second VAE minus that of the first.
        low: lower end of its 95% interval, by the studentised bootstrap over the images, which keeps the two
            VAEs' numbers of an image together.
        high: its upper end.
        p: two-sided, of the permutation test that exchanges the two VAEs image by image.
        adjusted_p: by Holm's method for all numbers that were tested. The interval is of this number alone.
        larger_is_better: of the number.
    """

    key: str
    value: float
    low: float
    high: float
    p: float
    adjusted_p: float
    larger_is_better: bool

    @property
    def is_larger_than_noise(self) -> bool:
        """Whether the adjusted p is below 0.05."""
        return self.adjusted_p < SIGNIFICANT

    @property
    def is_identical(self) -> bool:
        """Whether the number is one and the same for every image, so that there was nothing to test."""
        return self.value == self.low == self.high == 0 and self.p == 1

    @property
    def is_better(self) -> bool:
        """Whether the second VAE is the better one, noise or not."""
        return self.value > 0 if self.larger_is_better else self.value < 0


def differences(
    first: Metrics, second: Metrics, *, seed: int = 0, keys: Iterable[str] | None = None
) -> dict[str, Difference]:
    """The differences of all numbers that both have, each with an interval and a test.

    Args:
        first: numbers of one VAE.
        second: of another, on the same images.
        seed: of the resamples and exchanges.
        keys: which numbers, by default all.

    Numbers that are NaN or infinite for an image are left out, as is everything for a single image. What is
    the same for every image, as the encoder's error of two VAEs with one encoder, has a p of 1 and does not
    count in Holm's adjustment of the others. With four images no p is below 1/8, with five none below 1/16.

    Raises `InputError` for other images.

    ```python
    import equivae
    from equivae.evaluation.pairing import differences

    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(8, size=64)
    found = equivae.compare([vae, equivae.symmetrize(vae, "c2")], images, panels=0, progress=False)
    first, second = found.metrics.values()
    assert differences(first, second)["equivariance_gap_db/rot180"].is_better
    ```
    """
    if first.names != second.names:
        raise InputError(
            "the two VAEs were measured on different images; measure them on the same ones."
        )
    if len(first.names) < 2:
        return {}
    wanted = None if keys is None else set(keys)
    common = [name for name in first.transforms if name in second.transforms]
    shared = first.per_image.keys() & second.per_image.keys()
    chosen = [
        one
        for one in quantities(shared, common)
        if (wanted is None or one.key in wanted) and _is_finite(one, first, second)
    ]
    tested = [one for one in chosen if not _is_identical(one, first, second)]
    found = {one.key: _nothing(one) for one in chosen}
    if tested:
        pairs = _Pairs(first, second, tested, seed)
        found |= {one.key: one for one in holm([pairs.difference(one) for one in tested])}
    return found


class _Pairs:
    """The numbers of two VAEs side by side, with one set of resamples and exchanges for all of them."""

    def __init__(self, first: Metrics, second: Metrics, chosen: list[Quantity], seed: int) -> None:
        columns = list(dict.fromkeys(column for one in chosen for column in one.columns))
        self.data = {
            column: np.asarray([first.per_image[column], second.per_image[column]])
            for column in columns
        }
        both = {
            f"{i}/{column}": pair[i].tolist() for column, pair in self.data.items() for i in (0, 1)
        }
        self.resampling = Resampling(first.names, both, seed)
        self.exchanges, self.exact = _exchanges(len(first.names), seed)

    def difference(self, one: Quantity) -> Difference:
        count = len(one.columns)

        def number(means: Floats) -> Floats:
            return difference_of(one.number(means[..., count:]), one.number(means[..., :count]))

        keys = [f"{i}/{column}" for i in (0, 1) for column in one.columns]
        low, high = one.within
        spread = self.resampling.spread(
            keys,
            number,
            larger_is_better=one.larger_is_better,
            within=(low - high, high - low),
        )
        p = self._p(one)
        return Difference(
            one.key, spread.value, spread.low, spread.high, p, p, one.larger_is_better
        )

    def _p(self, one: Quantity) -> float:
        first, second = (np.stack([self.data[c][i] for c in one.columns], -1) for i in (0, 1))
        step = second - first
        parts = np.array_split(self.exchanges, max(1, self.exchanges.size // _AT_ONCE))
        gained = np.concatenate([part.astype(np.float64) @ step for part in parts]) / len(step)
        means = (first.mean(0) + gained, second.mean(0) - gained)
        with np.errstate(invalid="ignore"):
            drawn = np.abs(one.number(means[1]) - one.number(means[0]))
            observed = abs(float(one.number(second.mean(0)) - one.number(first.mean(0))))
        # What differs by rounding alone is as far out as what was observed.
        as_far = int((drawn >= observed - 1e-9 * max(observed, 1e-9)).sum())
        return as_far / len(drawn) if self.exact else (as_far + 1) / (len(drawn) + 1)


def _exchanges(count: int, seed: int) -> tuple[NDArray[np.uint8], bool]:
    """Which images are exchanged, `(exchanges, images)`, and whether these are all that there are."""
    if count <= _EXACT:
        numbers = np.arange(2**count)
        return ((numbers[:, None] >> np.arange(count)) & 1).astype(np.uint8), True
    drawn = min(_EXCHANGES, max(_LEAST, _WEIGHTS // count))
    random = np.random.default_rng(seed)
    return random.integers(0, 2, (drawn, count), dtype=np.uint8), False


def holm(found: list[Difference]) -> list[Difference]:
    """Holm's adjusted p, in the order given."""
    order = sorted(range(len(found)), key=lambda i: found[i].p)
    adjusted, largest = {}, 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(found) - place) * found[i].p))
        adjusted[i] = largest
    return [replace(one, adjusted_p=adjusted[i]) for i, one in enumerate(found)]


def _nothing(one: Quantity) -> Difference:
    return Difference(one.key, 0.0, 0.0, 0.0, 1.0, 1.0, one.larger_is_better)


def _is_identical(one: Quantity, first: Metrics, second: Metrics) -> bool:
    """For every image, up to what float32 rounds."""
    return all(
        np.allclose(first.per_image[c], second.per_image[c], rtol=_ROUNDING, atol=0)
        for c in one.columns
    )


def _is_finite(one: Quantity, *columns: Metrics) -> bool:
    values = [value for m in columns for column in one.columns for value in m.per_image[column]]
    if not all(map(math.isfinite, values)):
        return False
    means = [np.asarray([m.per_image[column] for column in one.columns]).mean(1) for m in columns]
    with np.errstate(divide="ignore", invalid="ignore"):
        return all(math.isfinite(float(one.number(mean))) for mean in means)
