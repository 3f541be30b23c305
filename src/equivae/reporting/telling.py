"""Tables of numbers with what is known of their certainty: as rows of text, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from equivae.evaluation.pairing import Difference, differences
from equivae.evaluation.results import Metrics
from equivae.reporting.tables import (
    Row,
    difference_words,
    interval,
    latex_table,
    number,
    table_rows,
)
from equivae.reporting.text import readable

__all__ = [
    "conventions_of",
    "differences_of",
    "notes_of",
    "to_csv",
    "to_latex",
    "told",
    "told_over_seeds",
]

_HEAD = (
    *("vae", "subject", "metric", "unit", "value", "low", "high"),
    *("difference", "difference_low", "difference_high", "p", "adjusted_p", "convention"),
)
Differences = Mapping[str, Mapping[str, Difference]]


def differences_of(
    before: Metrics | None, after: Metrics, settings: Mapping[str, Any]
) -> dict[str, Difference]:
    """The differences of two VAEs that were measured on the same images; else none."""
    if before is None or before.names != after.names:
        return {}
    return differences(before, after, seed=int(settings.get("seed", 0)))


def told(
    columns: Mapping[str, Metrics], compared: Differences
) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the table that a report shows.

    Args:
        columns: numbers by what their column is called.
        compared: differences from the first column, by the name of the other.
    """
    rows = table_rows(list(columns.values()))
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


def _marked(row: Row, names: Sequence[str], compared: Differences) -> list[str]:
    """The cells; a star where the difference from the first is larger than noise."""
    cells = []
    for name, cell in zip(names, row.cells, strict=True):
        found = compared.get(name, {}).get(row.key)
        cells.append(f"{cell} *" if found is not None and found.is_larger_than_noise else cell)
    return cells


def told_over_seeds(
    columns: Mapping[str, Metrics], seeds: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of mean and (unbiased) standard deviation over the seeds of trainings.

    Args:
        columns: numbers by label.
        seeds: what the training is called, to the labels of its seeds.
    """
    names = list(columns)
    head = ["metric", *(f"{name}, {len(labels)} seeds" for name, labels in seeds.items())]
    body = []
    for row in table_rows(list(columns.values())):
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


def notes_of(columns: Mapping[str, Metrics]) -> list[str]:
    """What was not measured, and what stars and tests are."""
    said = list(dict.fromkeys(note for one in columns.values() for note in one.notes))
    if len(columns) > 1:
        mark = "A star marks a difference from the first that is larger than noise: " * (
            len(columns) > 2
        )
        said.append(
            f"{mark}{'p' if mark else 'Larger than noise: p'} below 0.05 in a permutation test paired by "
            "image, adjusted for the number of comparisons (Holm); intervals by the paired bootstrap."
        )
    return said


def to_csv(columns: Mapping[str, Metrics], compared: Differences) -> str:
    """Every number with full precision: one line a number and VAE, with what it goes by."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(_HEAD)
    for row in table_rows(list(columns.values())):
        for (name, metrics), value in zip(columns.items(), row.values, strict=True):
            if value is None:
                continue
            spread = metrics.spreads.get(row.key)
            ends = ["", ""] if spread is None else [spread.low, spread.high]
            found = compared.get(name, {}).get(row.key)
            tested: list[Any] = [""] * 5
            if found is not None:
                tested = [found.value, found.low, found.high, found.p, found.adjusted_p]
            unit = {"ms": "s", "1/255": "1"}.get(row.unit, row.unit)
            cells = [name, row.subject, row.metric, unit, value, *ends, *tested, row.convention]
            writer.writerow([_plain(cell) for cell in cells])
    return target.getvalue()


def _plain(cell: Any) -> Any:
    """Numbers as Python reads them; texts that no program takes for a formula."""
    if isinstance(cell, float):
        return repr(cell) if math.isfinite(cell) else str(cell)
    text = readable(cell)
    return f"'{text}" if text[:1] in ("=", "+", "@") else text


def to_latex(columns: Mapping[str, Metrics], compared: Differences) -> str:
    """The table with intervals, for a paper."""
    rows = [row for row in table_rows(list(columns.values())) if row.key]
    names = list(columns)
    head = ["", *(f"{name} (95%)" if len(names) == 1 else name for name in names)]
    body = []
    for row in rows:
        cells = [row.label]
        for name, metrics, value in zip(names, columns.values(), row.values, strict=True):
            text = number(value, row.unit)
            spread = metrics.spreads.get(row.key)
            if spread is not None:
                text += f" ({interval(spread, row.unit)})"
            found = compared.get(name, {}).get(row.key)
            cells.append(f"{text} *" if found is not None and found.is_larger_than_noise else text)
        body.append(cells)
    return latex_table(head, body, [*conventions_of(columns), *notes_of(columns)])
