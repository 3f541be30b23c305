"""Reports as one HTML page each: pictures inside it, readable on a phone, light and dark."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from equivae.evaluation.results import Metrics, Panel, Spread
from equivae.reporting import charts
from equivae.reporting.content import versions
from equivae.reporting.figures import error_of, latent_colours
from equivae.reporting.tables import count_images, number, rows_of

if TYPE_CHECKING:
    from equivae.reporting.compare import Comparison
    from equivae.reporting.report import Report

__all__ = ["comparison_page", "report_page"]

_LARGEST = 512  # side of a picture in the page, in pixels
_SMALL = 96  # below it, pictures are kept exactly
_NOTES = {
    "sweep_rotate": "Latents rotated by any angle, inside the validity mask. Dashed: what a VAE without a "
    "gap would have.",
    "sweep_scale": "Latents resized. Dashed: what a VAE without a gap would have.",
    "spectrum": "Energy of 8x8 DCT blocks by frequency. Latents close to the images' curve are the "
    "easiest for a diffusion model.",
    "loss": "The training objective.",
    "comparison": "Dots: PSNR of the mean error. Whiskers: 95% interval over the images.",
}
_TITLES = {
    "sweep_rotate": "Angle sweep",
    "sweep_scale": "Scale sweep",
    "spectrum": "Spectrum",
    "loss": "Training",
    "comparison": "Round trip",
}


def report_page(report: Report) -> str:
    """The page of a report."""
    drawn = dict(report.charts())
    if report.metrics.transforms:
        measured = {"before": report.before, "after": report.metrics}
        there = {k: m for k, m in measured.items() if m is not None}
        colours = [charts.BEFORE, charts.AFTER][-len(there) :]
        labels = there if report.before else {"": report.metrics}
        drawn = {"comparison": charts.draw_comparison(labels, colours), **drawn}
    return _render(
        "report.html",
        title="Equivariance report",
        verdict=_unbroken(report.verdict),
        facts=_facts(report.metrics, report.settings, report.created),
        compared=report.before is not None,
        cards=_cards(report),
        transforms=_transform_rows([report.before, report.metrics]),
        groups=_group_rows([report.before, report.metrics]),
        rows=report.rows(),
        spreads=_spread_rows(report.metrics),
        pictures=_pictures(report),
        latents=_latents(report),
        charts=_charts(drawn),
        settings={key: str(value) for key, value in report.settings.items()},
        skipped=report.skipped,
        command=report.command,
        versions=versions(),
        created=report.created,
    )


def comparison_page(comparison: Comparison) -> str:
    """The page of a comparison."""
    labels, metrics = list(comparison.metrics), list(comparison.metrics.values())
    names = dict.fromkeys(name for one in metrics for name in one.transforms)
    best = {name: _best([one.transforms.get(name) for one in metrics]) for name in names}
    return _render(
        "comparison.html",
        title="Comparison of autoencoders",
        verdict=_unbroken(comparison.verdict),
        facts=_facts(metrics[0], comparison.settings, comparison.created),
        labels=[
            {"name": label, "key": f"series-{i % 8}", "source": comparison.sources[label]}
            for i, label in enumerate(labels)
        ],
        transforms=[
            {
                "name": name,
                "cells": [
                    {
                        "round_trip": _db(one.transforms[name].round_trip_psnr),
                        "gap": _db(one.transforms[name].equivariance_gap_db),
                        "best": i in best[name],
                    }
                    if name in one.transforms
                    else None
                    for i, one in enumerate(metrics)
                ],
            }
            for name in names
        ],
        reconstruction=[_db(one.reconstruction_psnr) for one in metrics],
        rows=rows_of(metrics),
        pictures=_compared_pictures(comparison),
        charts=_charts(dict(comparison.charts())),
        settings={key: str(value) for key, value in comparison.settings.items()},
        skipped=comparison.skipped,
        command=comparison.command,
        versions=versions(),
        created=comparison.created,
    )


def _render(template: str, **content: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**content) + "\n"


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


# Numbers ----------------------------------------------------------------------------------------


def _db(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if math.isfinite(value) else "∞"


def _cards(report: Report) -> list[dict[str, str]]:
    """The three numbers that matter, of the worst transform."""
    now, old = report.metrics, report.before
    psnr_before = old.reconstruction_psnr if old else None
    cards = [("reconstruction", now.reconstruction_psnr, psnr_before)]
    if now.transforms:
        name, worst = max(now.transforms.items(), key=lambda item: item[1].equivariance_gap_db)
        was = old.transforms.get(name) if old else None
        trip_before = was.round_trip_psnr if was else None
        cards.append((f"{name} round trip", worst.round_trip_psnr, trip_before))
        gap_before = was.equivariance_gap_db if was else None
        cards.append((f"{name} gap", worst.equivariance_gap_db, gap_before))
    return [
        {"label": label, "now": _db(value), "before": _db(before)} for label, value, before in cards
    ]


def _transform_rows(columns: Sequence[Metrics | None]) -> list[dict[str, Any]]:
    before, after = columns
    assert after is not None
    rows = []
    for name, one in after.transforms.items():
        old = before.transforms.get(name) if before else None
        spread = after.spreads.get(f"equivariance_gap_db/{name}")
        rows.append(
            {
                "name": name,
                "round_trip": _db(one.round_trip_psnr),
                "round_trip_before": _db(old.round_trip_psnr) if old else "",
                "gap": _db(one.equivariance_gap_db),
                "gap_before": _db(old.equivariance_gap_db) if old else "",
                "interval": _interval(spread),
                "ceiling": _db(one.ceiling_psnr),
                "encoder": number(one.encoder_relative_error)[:5],
            }
        )
    return rows


def _group_rows(columns: Sequence[Metrics | None]) -> list[dict[str, Any]]:
    before, after = columns
    assert after is not None
    return [
        {
            "name": name,
            "elements": len(one.elements) + 1,
            "gap": _db(one.equivariance_gap_db),
            "gap_before": _db(before.groups[name].equivariance_gap_db)
            if before and name in before.groups
            else "",
            "worst": _db(one.worst_gap_db),
            "worst_element": one.worst_element,
        }
        for name, one in after.groups.items()
    ]


def _spread_rows(metrics: Metrics) -> list[dict[str, str]]:
    rows = []
    for key, spread in metrics.spreads.items():
        name, _, transform = key.partition("/")
        shown = _db if name.endswith(("psnr", "db")) else number
        label = name.replace("_db", "").replace("_psnr", " PSNR").replace("_ssim", " SSIM")
        label = label.replace("_", " ")
        rows.append(
            {
                "label": f"{transform}: {label}" if transform else label,
                "value": shown(spread.value),
                "median": shown(spread.median),
                "interval": f"{shown(spread.low)} – {shown(spread.high)}",
                "worst": shown(spread.worst),
                "worst_image": spread.worst_image,
            }
        )
    return rows


def _interval(spread: Spread | None) -> str:
    return f"{_db(spread.low)} – {_db(spread.high)}" if spread else ""


def _best(found: Sequence[Any]) -> set[int]:
    """Where the largest round-trip PSNR is; nowhere if all are alike."""
    values = [one.round_trip_psnr if one else -math.inf for one in found]
    best = {i for i, value in enumerate(values) if value == max(values)}
    return best if len(best) < len(values) else set()


# Pictures ---------------------------------------------------------------------------------------


def _charts(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "title": _TITLES.get(name, name),
            "note": _NOTES.get(name, ""),
            "svg": Markup(charts.to_svg(figure, name)),
        }
        for name, figure in figures.items()
    ]


def _pictures(report: Report) -> list[dict[str, Any]]:
    found = []
    for transform in dict.fromkeys(panel.transform for panel in report.panels):
        after = [p for p in report.panels if p.transform == transform]
        before = [p for p in report.panels_before if p.transform == transform]
        images = []
        for i, panel in enumerate(after):
            rows = [_picture_row("after" if before else "", "after", panel)]
            if before:
                rows.insert(0, _picture_row("before", "before", before[i]))
            images.append({"name": panel.image, "rank": panel.rank, "rows": rows})
        found.append({"transform": transform, "images": images})
    return found


def _compared_pictures(comparison: Comparison) -> list[dict[str, Any]]:
    found = []
    panels = next(iter(comparison.panels.values()))
    for transform in dict.fromkeys(panel.transform for panel in panels):
        images: list[dict[str, Any]] = []
        for i, first in enumerate(p for p in panels if p.transform == transform):
            rows = []
            for j, (label, mine) in enumerate(comparison.panels.items()):
                panel = [p for p in mine if p.transform == transform][i]
                rows.append(_picture_row(label, f"series-{j % 8}", panel))
            images.append({"name": first.image, "rank": first.rank, "rows": rows})
        found.append({"transform": transform, "images": images})
    return found


def _picture_row(label: str, key: str, panel: Panel) -> dict[str, Any]:
    tiles = [
        ("original", "", panel.original),
        (
            "reconstruction",
            f"{_db(error_of(panel, panel.reconstruction))} dB",
            panel.reconstruction,
        ),
        (f"latent under {panel.transform}, decoded", "", panel.moved),
    ]
    if panel.back is not None:
        tiles.append(("that moved back", f"{_db(error_of(panel, panel.back))} dB", panel.back))
    return {"label": label, "key": key, "tiles": _tiles(tiles)}


def _latents(report: Report) -> list[dict[str, Any]]:
    found = []
    for transform in dict.fromkeys(panel.transform for panel in report.panels):
        rows_of_image: dict[str, list[dict[str, Any]]] = {}
        measured = [("before", report.panels_before), ("after", report.panels)]
        for key, panels in measured:
            mine = [p for p in panels if p.transform == transform]
            label = key if report.panels_before else ""
            for panel, colours in zip(mine, latent_colours(mine), strict=False):
                names = (
                    "latent",
                    f"latent under {transform}",
                    f"latent of image under {transform}",
                )
                tiles = [(name, "", c) for name, c in zip(names, colours, strict=True)]
                row = {"label": label, "key": key, "tiles": _tiles(tiles)}
                rows_of_image.setdefault(panel.image, []).append(row)
        images = [{"name": name, "rank": "", "rows": rows} for name, rows in rows_of_image.items()]
        if images:
            found.append({"transform": transform, "images": images[:1]})
    return found


def _tiles(pictures: Iterable[tuple[str, str, Tensor]]) -> list[dict[str, str]]:
    return [
        {"caption": caption, "error": error, "source": _data_uri(picture)}
        for caption, error, picture in pictures
    ]


def _data_uri(picture: Tensor) -> str:
    """A picture `(C, H, W)` in [0, 1] as a data URI: PNG if it is small, else JPEG of high quality."""
    array = rearrange(picture, "c h w -> h w c").mul(255).round().clamp(0, 255).byte().numpy()
    image = Image.fromarray(array if array.shape[-1] == 3 else np.ascontiguousarray(array[..., 0]))
    target = io.BytesIO()
    if max(image.size) <= _SMALL:
        image.save(target, "PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((_LARGEST, _LARGEST))
        image.save(target, "JPEG", quality=92, subsampling=0, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(target.getvalue()).decode()}"
