"""How often the 95% intervals of a report hold the truth, by simulation.

Errors of images are log-normal, with the spread (0.9 of the logarithm) that reconstruction errors of
photographs have; those of the round trip go with them. What is covered is the number of infinitely many
images. The percentile interval, which reports had before, stands beside.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from equivae.evaluation.statistics import Resampling, difference_of, psnr_of
from record import save

SIGMA, SHIFT, SHARED = 0.9, 1.0, 0.8
COUNTS = (4, 8, 24, 50, 100)
TRUTH = {
    "psnr": float(psnr_of(np.array(math.exp(SIGMA**2 / 2)))),
    "gap": 10 * SHIFT / math.log(10),
}


def errors(count: int, random: np.random.Generator) -> dict[str, list[float]]:
    """Errors of reconstruction and round trip of so many images."""
    a, b = random.normal(size=(2, count))
    shared = SHARED * a + math.sqrt(1 - SHARED**2) * b
    return {
        "reconstruction": np.exp(SIGMA * a).tolist(),
        "round_trip": np.exp(SIGMA * shared + SHIFT).tolist(),
    }


NUMBERS = {
    "psnr": (["reconstruction"], lambda m: psnr_of(m[..., 0])),
    "gap": (
        ["reconstruction", "round_trip"],
        lambda m: difference_of(psnr_of(m[..., 0]), psnr_of(m[..., 1])),
    ),
}


def coverage(
    number: str, count: int, runs: int, seed: int, percentile: bool = False
) -> tuple[int, int]:
    """In how many of so many runs the interval over `count` images holds the truth."""
    random = np.random.default_rng(seed)
    keys, function = NUMBERS[number]
    covered = 0
    for run in range(runs):
        resampling = Resampling([str(i) for i in range(count)], errors(count, random), run)
        if percentile:
            resampling._draws = None
        spread = resampling.spread(keys, function, larger_is_better=True)
        covered += spread.low <= TRUTH[number] <= spread.high
    return covered, runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    rows = []
    for number in NUMBERS:
        for count in COUNTS:
            row = {"number": number, "images": count}
            for name, percentile in (("percentile", True), ("studentised", False)):
                covered, runs = coverage(number, count, options.runs, 0, percentile)
                row[name] = covered / runs
            rows.append(row)
            print(row, flush=True)
    save("interval_coverage", {"runs": options.runs, "sigma": SIGMA, "rows": rows})


if __name__ == "__main__":
    main()
