"""Aspect-ratio buckets: sides of about one area, of which each picture gets the nearest to its shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

from equivae.errors import InputError

__all__ = ["Buckets", "make_buckets"]


@dataclass(frozen=True)
class Buckets:
    """What pictures are resized and cropped to, instead of a square.

    Attributes:
        sides: height and width of each bucket.
    """

    sides: tuple[tuple[int, int], ...]

    def of(self, height: int, width: int) -> tuple[int, int]:
        """The bucket of a picture: the nearest ratio of width to height, as kohya's trainer chooses it."""
        ratio = width / height
        return min(self.sides, key=lambda side: (abs(side[1] / side[0] - ratio), side))

    def __str__(self) -> str:
        """For fingerprints."""
        return "buckets " + " ".join(f"{height}x{width}" for height, width in self.sides)


def make_buckets(
    resolution: int, *, steps: int = 64, least: int | None = None, most: int | None = None
) -> Buckets:
    """kohya's buckets: sides in multiples of `steps` whose area is at most `resolution` squared.

    Args:
        resolution: side of a square of the largest area.
        steps: the sides are multiples of it (`bucket_reso_steps`).
        least: the smallest side (`min_bucket_reso`); half of the resolution unless given.
        most: the largest side (`max_bucket_reso`); twice the resolution unless given.

    `InputError` where the resolution has no room for a bucket.

    ```python
    from equivae.data.buckets import make_buckets

    assert (512, 512) in make_buckets(512).sides
    assert make_buckets(512).of(300, 400) == (448, 576)
    ```
    """
    least = resolution // 2 if least is None else least
    most = 2 * resolution if most is None else most
    if not least <= resolution <= most:
        raise InputError(
            f"min_bucket_reso={least} and max_bucket_reso={most} have to lie around the resolution of "
            f"{resolution}."
        )
    area, square = resolution**2, resolution // steps * steps
    found = {(square, square)} if square else set()
    for width in range(max(steps, math.ceil(least / steps) * steps), most + 1, steps):
        height = min(most, area // width) // steps * steps
        if height >= max(least, 1):
            found |= {(height, width), (width, height)}
    if not found:
        raise InputError(
            f"resolution={resolution} has no bucket in multiples of {steps}; lower bucket_reso_steps."
        )
    return Buckets(tuple(sorted(found)))
