"""The table of a report for a paper: LaTeX, with the rows that one asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from equivae.errors import InputError
from equivae.evaluation.pairing import Difference
from equivae.evaluation.results import Metrics
from equivae.options import quoted
from equivae.reporting.numbers import number, p_value, signed
from equivae.reporting.tables import Row, count_images, interval, table_rows
from equivae.reporting.telling import (
    Differences,
    certainty_of,
    conventions_of,
    fitted_words,
    not_measured_in,
)
from equivae.reporting.text import latex, readable

__all__ = ["Paper", "to_latex"]

_NOISE = (
    "larger than noise: p below 0.05 in a permutation test paired by image, adjusted for the number of "
    "comparisons (Holm); the intervals are not adjusted."
)


@dataclass(frozen=True)
class Paper:
    """What stands in a table for a paper.

    Attributes:
        columns: numbers by what their column is called in the report.
        names: what the columns are called in the table.
        compared: differences from the first column, by the column's name in the report.
        against_plain: differences of fitted latent ops from the plain ones, likewise.
        settings: of the report.
        reference: what drift is measured from.
    """

    columns: Mapping[str, Metrics]
    names: Sequence[str]
    compared: Differences = field(default_factory=dict)
    against_plain: Differences = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    reference: str = "the baseline"


def to_latex(paper: Paper, chosen: Sequence[str] | None = None) -> str:
    """The table, for `booktabs`.

    Args:
        paper: what stands in it.
        chosen: the rows and their order, each by the name of a metric (for every transform), by the whole
            label of a row, or by its key; by default every number that has an interval.

    Raises `InputError` for a name that no row has.
    """
    rows = _chosen(table_rows(list(paper.columns.values()), paper.reference), chosen)
    two = len(paper.columns) == 2
    head = ["", *paper.names, *(["difference", "adjusted p"] if two else [])]
    about = _about(paper)
    lines = [
        "% needs \\usepackage{booktabs}",
        f"% {readable(about)}",
        f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        "\\toprule",
        f"{' & '.join(map(latex, head))} \\\\",
        "\\midrule",
        *(f"{' & '.join(map(latex, _cells(paper, row)))} \\\\" for row in rows),
        "\\bottomrule",
        "\\end{tabular}",
        "",
        "\\par\\smallskip\\footnotesize",
        *(f"{latex(note)}\\par" for note in [about, *_notes(paper, rows)]),
        *(f"% {readable(note)}" for note in not_measured_in(paper.columns)),
    ]
    return "\n".join(lines) + "\n"


def _chosen(rows: list[Row], chosen: Sequence[str] | None) -> list[Row]:
    if chosen is None:
        return [row for row in rows if row.key]
    wanted = [chosen] if isinstance(chosen, str) else list(chosen)
    found: dict[str, Row] = {}
    for name in wanted:
        named = [row for row in rows if name in (row.label, row.metric, row.key) and name]
        if not named:
            there = ", ".join(dict.fromkeys(row.metric for row in rows))
            raise InputError(f"no row is called {quoted(name)}; there are {there}.")
        for row in named:
            found.setdefault(row.label, row)
    return list(found.values())


def _cells(paper: Paper, row: Row) -> list[str]:
    unit = f", {row.unit}" if row.unit in ("dB", "ms") else ""
    cells = [f"{row.label}{unit}"]
    two = len(paper.columns) == 2
    tested = None
    for (name, metrics), value in zip(paper.columns.items(), row.values, strict=True):
        spread, tested = metrics.spreads.get(row.key), paper.compared.get(name, {}).get(row.key)
        text = _bare(number(value, row.unit), row.unit)
        if spread is not None:
            text += f" ({_bare(interval(spread, row.unit), row.unit)})"
        cells.append(text if two else text + _star(tested))
    if not two:
        return cells
    if tested is None or tested.is_identical:
        return [*cells, "" if tested is None else _bare(number(0.0, row.unit), row.unit), ""]
    ends = _bare(interval(tested, row.unit), row.unit)
    step = f"{_bare(signed(tested.value, row.unit), row.unit)} ({ends}){_star(tested)}"
    return [*cells, step, p_value(tested.adjusted_p).removeprefix(" = ").strip()]


def _bare(text: str, unit: str) -> str:
    """Without the unit, which the row names."""
    return text.removesuffix(unit).rstrip() if unit else text


def _star(difference: Difference | None) -> str:
    return " *" if difference is not None and difference.is_larger_than_noise else ""


def _about(paper: Paper) -> str:
    """How many images, of which size, and what stands in brackets."""
    images = count_images(min(one.images for one in paper.columns.values()))
    resolution = paper.settings.get("resolution")
    size = f", {resolution} px" if isinstance(resolution, int) else ""
    return f"{images}{size}; in brackets 95% intervals over the images."


def _notes(paper: Paper, rows: Sequence[Row]) -> list[str]:
    shown = {f"{row.convention}." for row in rows}
    said = [
        note
        for note in conventions_of(paper.columns)
        if note.split(": ", 1)[1] in shown or note.startswith("images: ")
    ]
    said += [*certainty_of(paper.columns), *fitted_words(paper.columns, paper.against_plain)]
    if any(paper.compared.values()):
        several = "from the first autoencoder " if len(paper.columns) > 2 else ""
        said.append(f"* difference {several}{_NOISE}")
    return said
