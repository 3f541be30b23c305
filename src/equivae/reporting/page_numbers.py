"""The numbers of a page, as the rows and cells that its templates show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from equivae.evaluation.results import Metrics, Spread, TransformMetrics
from equivae.reporting.findings import Findings
from equivae.reporting.numbers import fixed, number
from equivae.reporting.tables import table_rows
from equivae.reporting.verdicts import worst_transform
from equivae.units import rank

__all__ = ["best_of", "cards", "db", "group_rows", "spread_rows", "transform_rows"]


def db(value: float | None) -> str:
    return "" if value is None else fixed(value, 2)


def cards(report: Findings) -> list[dict[str, str]]:
    """The three numbers that matter, of the worst transform."""
    now, old = report.metrics, report.before
    psnr_before = old.reconstruction_psnr if old else None
    cards = [("reconstruction", now.reconstruction_psnr, psnr_before)]
    if now.transforms:
        name, worst = worst_transform(now)
        was = old.transforms.get(name) if old else None
        trip_before = was.round_trip_psnr if was else None
        cards.append((f"{name} round trip", worst.round_trip_psnr, trip_before))
        gap_before = was.equivariance_gap_db if was else None
        cards.append((f"{name} gap", worst.equivariance_gap_db, gap_before))
    return [
        {"label": label, "now": db(value), "before": db(before)} for label, value, before in cards
    ]


def transform_rows(columns: Sequence[Metrics | None]) -> list[dict[str, Any]]:
    before, after = columns
    assert after is not None
    rows = []
    for name, one in after.transforms.items():
        old = before.transforms.get(name) if before else None
        spread = after.spreads.get(f"equivariance_gap_db/{name}")
        rows.append(
            {
                "name": name,
                "round_trip": db(one.round_trip_psnr),
                "round_trip_before": db(old.round_trip_psnr) if old else "",
                "gap": db(one.equivariance_gap_db),
                "gap_before": db(old.equivariance_gap_db) if old else "",
                "interval": _interval(spread),
                "ceiling": db(one.ceiling_psnr),
                "encoder": fixed(one.encoder_relative_error, 3),
                "reencoded": db(one.reencoded_psnr),
                "seconds": _times(one),
            }
        )
    return rows


def _times(one: TransformMetrics) -> str:
    """What both ways to move one latent take."""
    if one.latent_op_seconds is None or one.reencoded_seconds is None:
        return ""
    return " / ".join(number(t, "ms") for t in (one.latent_op_seconds, one.reencoded_seconds))


def group_rows(columns: Sequence[Metrics | None]) -> list[dict[str, Any]]:
    before, after = columns
    assert after is not None
    return [
        {
            "name": name,
            "elements": len(one.elements) + 1,
            "gap": db(one.equivariance_gap_db),
            "gap_before": db(before.groups[name].equivariance_gap_db)
            if before and name in before.groups
            else "",
            "worst": db(one.worst_gap_db),
            "worst_element": one.worst_element,
        }
        for name, one in after.groups.items()
    ]


def spread_rows(metrics: Metrics) -> list[dict[str, str]]:
    rows = []
    names = {row.key: (row.label, row.unit) for row in table_rows([metrics])}
    for key, spread in metrics.spreads.items():
        label, unit = names.get(key, (key, ""))
        median, low, high, worst = (
            number(value, unit, spread.value).removesuffix(unit).rstrip()
            for value in (spread.median, spread.low, spread.high, spread.worst)
        )
        rows.append(
            {
                "label": label,
                "value": number(spread.value, unit),
                "median": median,
                "interval": f"{low} – {high}",
                "worst": worst,
                "worst_image": spread.worst_image,
            }
        )
    return rows


def _interval(spread: Spread | None) -> str:
    return f"{db(spread.low)} – {db(spread.high)}" if spread else ""


def best_of(found: Sequence[Any]) -> set[int]:
    """Where the largest round-trip PSNR is; nowhere if all are alike."""
    values = [rank(one.round_trip_psnr) if one else -math.inf for one in found]
    best = {i for i, value in enumerate(values) if value == max(values)}
    return best if len(best) < len(values) else set()
