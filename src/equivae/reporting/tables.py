"""The numbers of a report as rows of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from equivae.evaluation.results import GroupMetrics, LatentStatistics, Metrics, TransformMetrics
from equivae.reporting.text import markdown

__all__ = ["count_images", "markdown_table", "number", "rows_of"]

_METRICS: tuple[tuple[str, str, str], ...] = (
    ("reconstruction PSNR", "dB", "reconstruction_psnr"),
    ("reconstruction MSE", "", "reconstruction_mse"),
    ("reconstruction SSIM", "", "reconstruction_ssim"),
    ("reconstruction MS-SSIM", "", "reconstruction_ms_ssim"),
    ("reconstruction LPIPS", "", "reconstruction_lpips"),
    ("reconstruction feature cosine", "", "reconstruction_feature_cosine"),
    ("reconstruction rFID", "", "reconstruction_rfid"),
)
_TRANSFORM_METRICS: tuple[tuple[str, str, str], ...] = (
    ("round-trip PSNR", "dB", "round_trip_psnr"),
    ("round-trip MSE", "", "round_trip_mse"),
    ("round-trip SSIM", "", "round_trip_ssim"),
    ("round-trip MS-SSIM", "", "round_trip_ms_ssim"),
    ("round-trip LPIPS", "", "round_trip_lpips"),
    ("round-trip feature cosine", "", "round_trip_feature_cosine"),
    ("round-trip rFID", "", "round_trip_rfid"),
    ("equivariance gap", "dB", "equivariance_gap_db"),
    ("ceiling PSNR", "dB", "ceiling_psnr"),
    ("re-encoded PSNR", "dB", "reencoded_psnr"),
    ("re-encoded MSE", "", "reencoded_mse"),
    ("latent op, per image", "ms", "latent_op_seconds"),
    ("re-encoding, per image", "ms", "reencoded_seconds"),
    ("encoder relative error", "", "encoder_relative_error"),
    ("encoder cosine", "", "encoder_cosine"),
)
_GROUP_METRICS: tuple[tuple[str, str, str], ...] = (
    ("round-trip PSNR", "dB", "round_trip_psnr"),
    ("equivariance gap", "dB", "equivariance_gap_db"),
    ("worst gap", "dB", "worst_gap_db"),
)
_LATENTS: tuple[tuple[str, str, str], ...] = (
    ("latents: effective dimension", "", "effective_dimension"),
    ("latents: smoothness", "", "smoothness"),
    ("latents: drift from the baseline", "", "drift"),
)
_Holder = Metrics | TransformMetrics | GroupMetrics | LatentStatistics


def rows_of(columns: Sequence[Metrics | None]) -> list[tuple[str, list[str]]]:
    """`(label, one number per column)` of everything that at least one column has.

    Args:
        columns: numbers of the VAEs, `None` for one that was not measured.
    """
    return [(label, cells) for label, cells in _all_rows(columns) if any(cells)]


def _all_rows(columns: Sequence[Metrics | None]) -> Iterator[tuple[str, list[str]]]:
    there = [one for one in columns if one is not None]
    for label, unit, attribute in _METRICS:
        yield label, _cells(columns, attribute, unit)
    for name in dict.fromkeys(name for one in there for name in one.transforms):
        found = [None if one is None else one.transforms.get(name) for one in columns]
        for label, unit, attribute in _TRANSFORM_METRICS:
            yield f"{name}: {label}", _cells(found, attribute, unit)
    for name in dict.fromkeys(name for one in there for name in one.groups):
        groups = [None if one is None else one.groups.get(name) for one in columns]
        for label, unit, attribute in _GROUP_METRICS:
            yield f"group {name}: {label}", _cells(groups, attribute, unit)
    latents = [None if one is None else one.latents for one in columns]
    for label, unit, attribute in _LATENTS:
        yield label, _cells(latents, attribute, unit)


def _cells(holders: Sequence[_Holder | None], attribute: str, unit: str) -> list[str]:
    return ["" if one is None else number(getattr(one, attribute), unit) for one in holders]


def number(value: float | None, unit: str = "") -> str:
    """A number as the tables show it; nothing for `None`."""
    if value is None:
        return ""
    if math.isnan(value):
        return "NaN"
    if unit == "dB":
        return f"{value:.2f} dB"
    if unit == "ms":
        return f"{value * 1000:.3g} ms"
    if not math.isfinite(value):
        return str(value)
    return f"{value:.5f}" if abs(value) < 0.1 else f"{value:.4f}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; what is no `Markdown` yet is escaped."""
    lines = [f"| {' | '.join(map(markdown, head))} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(map(markdown, row))} |" for row in rows]


def count_images(images: int) -> str:
    return f"{images} image" + ("s" if images != 1 else "")
