"""Reports as one HTML page each: pictures inside it, readable on a phone, light and dark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from equivae.evaluation.results import Metrics
from equivae.evaluation.statistics import CERTAIN
from equivae.reporting import charts
from equivae.reporting.content import versions
from equivae.reporting.findings import ComparedFindings, Findings
from equivae.reporting.page_numbers import (
    best_of,
    cards,
    db,
    group_rows,
    spread_rows,
    transform_rows,
)
from equivae.reporting.page_pictures import (
    compared_blocks,
    latent_blocks,
    picture_blocks,
    probe_blocks,
    slider_of,
)
from equivae.reporting.tables import count_images
from equivae.reporting.text import readable

__all__ = ["comparison_page", "render", "report_page"]

_NOTES = {
    "sweep_rotate": "Latents rotated by any angle, inside the validity mask. Dashed: what a VAE without a "
    "gap would have.",
    "sweep_scale": "Latents resized. Dashed: what a VAE without a gap would have.",
    "spectrum": "Energy of 8x8 DCT blocks by diagonal, as shares of the whole without the constant.",
    "profile": "Amplitudes of 8x8 DCT blocks in zigzag order, relative to the constant's.",
    "loss": "The training objective.",
    "comparison": "Dots: PSNR of the mean error. Whiskers: 95% interval over the images.",
}
_TITLES = {
    "sweep_rotate": "Angle sweep",
    "sweep_scale": "Scale sweep",
    "spectrum": "Spectrum",
    "profile": "Spectrum, in zigzag order",
    "loss": "Training",
    "comparison": "Round trip",
}


def report_page(report: Findings) -> str:
    """The page of a report."""
    drawn = dict(report.charts())
    if report.metrics.transforms:
        measured = {"before": report.before, "after": report.metrics}
        there = {k: m for k, m in measured.items() if m is not None}
        colours = [charts.BEFORE, charts.AFTER][-len(there) :]
        labels = there if report.before else {"": report.metrics}
        drawn = {"comparison": charts.draw_comparison(labels, colours), **drawn}
    return render(
        "report.html",
        title="Equivariance report",
        verdict=_unbroken(report.verdict),
        facts=_facts(report.metrics, report.settings, report.created),
        compared=report.before is not None,
        reencoded=any(t.reencoded_psnr is not None for t in report.metrics.transforms.values()),
        certain=CERTAIN,
        images=report.metrics.images,
        cards=cards(report),
        transforms=transform_rows([report.before, report.metrics]),
        groups=group_rows([report.before, report.metrics]),
        table=report.rows_with_certainty(),
        footnotes=report.footnotes(),
        slider=slider_of(report),
        probes=probe_blocks(report),
        spreads=spread_rows(report.metrics),
        pictures=picture_blocks(report),
        latents=latent_blocks(report),
        charts=_charts(drawn),
        settings={key: str(value) for key, value in report.settings.items()},
        skipped=report.skipped,
        command=report.command,
        versions=versions(),
        created=report.created,
    )


def comparison_page(comparison: ComparedFindings) -> str:
    """The page of a comparison."""
    labels, metrics = list(comparison.metrics), list(comparison.metrics.values())
    names = dict.fromkeys(name for one in metrics for name in one.transforms)
    best = {name: best_of([one.transforms.get(name) for one in metrics]) for name in names}
    return render(
        "comparison.html",
        title="Comparison of autoencoders",
        verdict=_unbroken(comparison.verdict),
        facts=_facts(metrics[0], comparison.settings, comparison.created),
        certain=CERTAIN,
        images=metrics[0].images,
        labels=[
            {"name": label, "key": f"series-{i % 8}", "source": comparison.sources[label]}
            for i, label in enumerate(labels)
        ],
        transforms=[
            {
                "name": name,
                "cells": [
                    {
                        "round_trip": db(one.transforms[name].round_trip_psnr),
                        "gap": db(one.transforms[name].equivariance_gap_db),
                        "best": i in best[name],
                    }
                    if name in one.transforms
                    else None
                    for i, one in enumerate(metrics)
                ],
            }
            for name in names
        ],
        reconstruction=[db(one.reconstruction_psnr) for one in metrics],
        table=comparison.rows_with_certainty(),
        over_seeds=comparison.seed_table(),
        footnotes=comparison.footnotes(),
        pictures=compared_blocks(comparison),
        charts=_charts(dict(comparison.charts())),
        settings={key: str(value) for key, value in comparison.settings.items()},
        skipped=comparison.skipped,
        command=comparison.command,
        versions=versions(),
        created=comparison.created,
    )


def render(template: str, **content: Any) -> str:
    """A page from its template and what stands in it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**content) + "\n"


def _finalize(value: Any) -> Any:
    """Before anything is escaped: no bytes that are no characters."""
    return readable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _unbroken(text: str) -> str:
    """A number and its unit stay on one line."""
    return text.replace(" dB", "\u00a0dB")


def _facts(metrics: Metrics, settings: Mapping[str, Any], created: str) -> list[str]:
    facts = [count_images(metrics.images)]
    resolution = settings.get("resolution")
    if isinstance(resolution, int):
        facts.append(f"{resolution} px")
    if "seed" in settings:
        facts.append(f"seed {settings['seed']}")
    return [*facts, created[:10]]


def _charts(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "title": _TITLES.get(name, name),
            "note": _NOTES.get(name, ""),
            "svg": Markup(charts.to_svg(figure, name)),
        }
        for name, figure in figures.items()
    ]
