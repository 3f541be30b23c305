"""Tables of numbers with what is known of their certainty, as rows of text and as CSV."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from equivae.evaluation.pairing import Difference, differences
from equivae.evaluation.results import Metrics
from equivae.evaluation.statistics import FEW
from equivae.reporting.numbers import p_value, signed
from equivae.reporting.tables import (
    Row,
    count_images,
    difference_words,
    interval,
    number,
    table_rows,
)
from equivae.reporting.text import readable

__all__ = [
    "certainty_of",
    "conventions_of",
    "differences_of",
    "fitted_words",
    "not_measured_in",
    "notes_of",
    "to_csv",
    "told",
    "told_over_seeds",
]

_HEAD = (
    *("vae", "subject", "metric", "unit", "value", "low", "high"),
    *("difference", "difference_low", "difference_high", "p", "adjusted_p", "convention"),
)
_AGAINST_PLAIN = "the difference is from the plain latent op on the same VAE"
Differences = Mapping[str, Mapping[str, Difference]]


def differences_of(
    before: Metrics | None, after: Metrics, settings: Mapping[str, Any]
) -> dict[str, Difference]:
    """The differences of two VAEs that were measured on the same images; else none."""
    if before is None or before.names != after.names:
        return {}
    return differences(before, after, seed=int(settings.get("seed", 0)))


def told(
    columns: Mapping[str, Metrics],
    compared: Differences,
    reference: str,
    *,
    tested_only: bool = False,
) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the table that a report shows.

    Args:
        columns: numbers by what their column is called.
        compared: differences from the first column, by the name of the other.
        reference: what drift is measured from.
        tested_only: leave out what was not tested.
    """
    rows = table_rows(list(columns.values()), reference)
    if tested_only:
        rows = [row for row in rows if _is_tested(row, compared)]
    if len(columns) == 1:
        (only,) = columns.values()
        body = [
            [row.label, *row.cells, interval(only.spreads.get(row.key), row.unit)] for row in rows
        ]
        return ["metric", *columns, "95% interval"], body
    if len(columns) == 2:
        found = next(iter(compared.values()), {})
        body = [
            [row.label, *row.cells, *difference_words(found.get(row.key), row.unit)] for row in rows
        ]
        return ["metric", *columns, "difference (95% interval)", "larger than noise"], body
    first = next(iter(columns))
    body = [[row.label, *_marked(row, list(columns), compared)] for row in rows]
    return ["metric", first, *(f"{name}" for name in list(columns)[1:])], body


def _is_tested(row: Row, compared: Differences) -> bool:
    found = [one[row.key] for one in compared.values() if row.key in one]
    return not all(difference.is_identical for difference in found)


def _marked(row: Row, names: Sequence[str], compared: Differences) -> list[str]:
    """The cells; a star where the difference from the first is larger than noise."""
    cells = []
    for name, cell in zip(names, row.cells, strict=True):
        found = compared.get(name, {}).get(row.key)
        cells.append(f"{cell} *" if found is not None and found.is_larger_than_noise else cell)
    return cells


def told_over_seeds(
    columns: Mapping[str, Metrics], seeds: Mapping[str, Sequence[str]], reference: str
) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of mean and (unbiased) standard deviation over the seeds of trainings.

    Args:
        columns: numbers by label.
        seeds: what the training is called, to the labels of its seeds.
        reference: what drift is measured from.
    """
    names = list(columns)
    head = ["metric", *(f"{name}, {len(labels)} seeds" for name, labels in seeds.items())]
    body = []
    for row in table_rows(list(columns.values()), reference):
        cells = []
        for labels in seeds.values():
            values = [row.values[names.index(label)] for label in labels]
            cells.append(_mean_and_deviation([v for v in values if v is not None], row.unit))
        if any(cells):
            body.append([row.label, *cells])
    return head, body


def _mean_and_deviation(values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    mean = math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan
    shown = number(mean, unit)
    if len(values) < 2:
        return shown
    deviation = number(statistics.stdev(values), unit, mean)
    return f"{shown.removesuffix(unit).rstrip()} ± {deviation}"


def conventions_of(columns: Mapping[str, Metrics]) -> list[str]:
    """What the numbers mean, a line each."""
    found: dict[str, str] = {}
    for one in reversed(list(columns.values())):
        found |= one.conventions
    return [f"{name}: {meaning}." for name, meaning in found.items()]


def not_measured_in(columns: Mapping[str, Metrics]) -> list[str]:
    """What was not measured, and how to have it measured, a sentence each."""
    return list(dict.fromkeys(note for one in columns.values() for note in one.notes))


def certainty_of(columns: Mapping[str, Metrics]) -> list[str]:
    """That there are too few images for an interval, if there are."""
    images = min(one.images for one in columns.values())
    if images >= FEW or not any(one.spreads for one in columns.values()):
        return []
    return [f"{count_images(images)}: intervals are unreliable below {FEW} images."]


def fitted_words(columns: Mapping[str, Metrics], found: Differences) -> list[str]:
    """How every fitted latent op does against the plain one, a sentence each.

    Args:
        columns: numbers by what their column is called.
        found: by that name, round-trip PSNR of fitted minus plain by the fitted transform's name.
    """
    said = []
    for column, differences_found in found.items():
        whose = f" ({column})" if len(columns) > 1 else ""
        several = sum(not one.is_identical for one in differences_found.values()) > 1
        for name, one in differences_found.items():
            plain = columns[column].transforms[name].plain_transform
            start = f"{name} against {plain}{whose}:"
            if one.is_identical:
                said.append(f"{start} the same round trip for every image.")
                continue
            noise = "larger than noise" if one.is_larger_than_noise else "within noise"
            p = f"{'adjusted ' if several else ''}p{p_value(one.adjusted_p)}"
            value, ends = signed(one.value, "dB"), interval(one, "dB")
            said.append(f"{start} {value} round trip (95% interval {ends}), {noise}, {p}.")
    return said


def notes_of(columns: Mapping[str, Metrics]) -> list[str]:
    """What was not measured, whether there are enough images, and what stars and tests are."""
    said = [*not_measured_in(columns), *certainty_of(columns)]
    if len(columns) > 1:
        mark = "A star marks a difference from the first that is larger than noise: " * (
            len(columns) > 2
        )
        said.append(
            f"{mark}{'p' if mark else 'Larger than noise: p'} below 0.05 in a permutation test paired by "
            "image, adjusted for the number of comparisons (Holm); the intervals, by the paired bootstrap, "
            "are not adjusted."
        )
    return said


def to_csv(
    columns: Mapping[str, Metrics],
    compared: Differences,
    against_plain: Differences,
    reference: str,
) -> str:
    """Every number with full precision: one line a number and VAE, with what it goes by.

    Args:
        columns: numbers by what their column is called.
        compared: differences from the first column, by the name of the other.
        against_plain: round-trip PSNR of fitted latent ops minus that of the plain ones, likewise.
        reference: what drift is measured from.
    """
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(_HEAD)
    for row in table_rows(list(columns.values()), reference):
        for (name, metrics), value in zip(columns.items(), row.values, strict=True):
            if value is None:
                continue
            spread = metrics.spreads.get(row.key)
            ends = ["", ""] if spread is None else [spread.low, spread.high]
            found = compared.get(name, {}).get(row.key)
            tested: list[Any] = [""] * 5 if found is None else _tested(found)
            unit = {"ms": "s", "1/255": "1"}.get(row.unit, row.unit)
            cells = [name, row.subject, row.metric, unit, value, *ends, *tested, row.convention]
            writer.writerow([_plain(cell) for cell in cells])
    for column, found_there in against_plain.items():
        for name, one in found_there.items():
            trip = columns[column].transforms[name]
            spread = columns[column].spreads.get(one.key)
            ends = ["", ""] if spread is None else [spread.low, spread.high]
            cells = [column, f"{name} against {trip.plain_transform}", "round-trip PSNR", "dB"]
            cells += [trip.round_trip_psnr, *ends, *_tested(one), _AGAINST_PLAIN]
            writer.writerow([_plain(cell) for cell in cells])
    return target.getvalue()


def _tested(found: Difference) -> list[Any]:
    return [found.value, found.low, found.high, found.p, found.adjusted_p]


def _plain(cell: Any) -> Any:
    """Numbers as Python reads them; texts that no program takes for a formula."""
    if isinstance(cell, float):
        return repr(cell) if math.isfinite(cell) else str(cell)
    text = readable(cell)
    return f"'{text}" if text[:1] in ("=", "+", "@") else text
