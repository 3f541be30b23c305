"""The numbers of a report as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from equivae.evaluation.latent_metrics import LATENT_METRICS
from equivae.evaluation.pairing import Difference
from equivae.evaluation.results import Metrics, Spread
from equivae.reporting.numbers import number, p_value, signed
from equivae.reporting.text import markdown

__all__ = [
    "Row",
    "count_images",
    "difference_words",
    "interval",
    "markdown_table",
    "number",
    "rows_of",
    "table_rows",
]


@dataclass(frozen=True)
class _Kind:
    """A row: what it is called, where its number lies, and what it goes by.

    `path` is that of attributes; `key` that of spreads and differences, `convention` that of
    `Metrics.conventions`.
    """

    label: str
    unit: str
    path: str
    key: str = ""
    convention: str = ""


def _imagenet(trip: str, key: str) -> tuple[_Kind, ...]:
    kinds = (
        ("PSNR", "dB", "psnr"),
        ("SSIM", "", "ssim"),
        ("LPIPS", "", "lpips"),
        ("rFID", "", "rfid"),
    )
    return tuple(
        _Kind(
            f"{trip} {name} (imagenet)",
            unit,
            f"imagenet.{field}",
            f"imagenet/{key}_{field}",
            f"{name} (imagenet)",
        )
        for name, unit, field in kinds
    )


_METRICS = (
    _Kind("reconstruction PSNR", "dB", "reconstruction_psnr", "reconstruction_psnr", "PSNR"),
    _Kind("reconstruction MSE", "", "reconstruction_mse"),
    _Kind("reconstruction SSIM", "", "reconstruction_ssim", "reconstruction_ssim", "SSIM"),
    _Kind("reconstruction MS-SSIM", "", "reconstruction_ms_ssim"),
    _Kind("reconstruction LPIPS", "", "reconstruction_lpips", convention="LPIPS"),
    _Kind("reconstruction feature cosine", "", "reconstruction_feature_cosine"),
    _Kind("reconstruction rFID", "", "reconstruction_rfid", convention="rFID"),
    *_imagenet("reconstruction", "reconstruction"),
)
_TRANSFORM_METRICS = (
    _Kind("round-trip PSNR", "dB", "round_trip_psnr", "round_trip_psnr", "PSNR"),
    _Kind("round-trip MSE", "", "round_trip_mse"),
    _Kind("round-trip SSIM", "", "round_trip_ssim", "round_trip_ssim", "SSIM"),
    _Kind("round-trip MS-SSIM", "", "round_trip_ms_ssim"),
    _Kind("round-trip LPIPS", "", "round_trip_lpips", convention="LPIPS"),
    _Kind("round-trip feature cosine", "", "round_trip_feature_cosine"),
    _Kind("round-trip rFID", "", "round_trip_rfid", convention="rFID"),
    _Kind("equivariance gap", "dB", "equivariance_gap_db", "equivariance_gap_db", "PSNR"),
    *_imagenet("round-trip", "round_trip"),
    _Kind(
        "equivariance gap (imagenet)",
        "dB",
        "imagenet.gap_db",
        "imagenet/gap_db",
        "gap (imagenet)",
    ),
    _Kind("ceiling PSNR", "dB", "ceiling_psnr", convention="PSNR"),
    _Kind("re-encoded PSNR", "dB", "reencoded_psnr", convention="PSNR"),
    _Kind("re-encoded MSE", "", "reencoded_mse"),
    _Kind("latent op, per image", "ms", "latent_op_seconds"),
    _Kind("re-encoding, per image", "ms", "reencoded_seconds"),
    _Kind("encoder relative error", "", "encoder_relative_error", "encoder_relative_error"),
    _Kind("encoder cosine", "", "encoder_cosine"),
)
_GROUP_METRICS = (
    _Kind("round-trip PSNR", "dB", "round_trip_psnr", convention="PSNR"),
    _Kind("equivariance gap", "dB", "equivariance_gap_db", convention="PSNR"),
    _Kind("worst gap", "dB", "worst_gap_db", convention="PSNR"),
)
_LATENTS = (
    _Kind("effective dimension", "", "effective_dimension"),
    _Kind("smoothness", "", "smoothness"),
    _Kind("drift from {reference}", "", "drift"),
)


@dataclass(frozen=True)
class Row:
    """One number of every VAE.

    Attributes:
        subject: a transform, `"group c2"`, `"latents"`, or nothing for the reconstruction.
        metric: what the number is.
        unit: of the values.
        key: of its spread and of its difference; empty where it has none.
        convention: in words, what it goes by; empty where its name says it all.
        values: of every VAE, `None` where it has none.
    """

    subject: str
    metric: str
    unit: str
    key: str
    convention: str
    values: tuple[float | None, ...]

    @property
    def label(self) -> str:
        return f"{self.subject}: {self.metric}" if self.subject else self.metric

    @property
    def cells(self) -> list[str]:
        return [number(value, self.unit) for value in self.values]


def table_rows(columns: Sequence[Metrics | None], reference: str = "the baseline") -> list[Row]:
    """Every number that at least one column has.

    Args:
        columns: numbers of the VAEs, `None` for one that was not measured.
        reference: the VAE that drift is measured from.
    """
    rows = _all_rows(columns, reference)
    return [row for row in rows if any(value is not None for value in row.values)]


def rows_of(
    columns: Sequence[Metrics | None], reference: str = "the baseline"
) -> list[tuple[str, list[str]]]:
    """`(label, one number per column)` of `table_rows`."""
    return [(row.label, row.cells) for row in table_rows(columns, reference)]


def _all_rows(columns: Sequence[Metrics | None], reference: str) -> Iterator[Row]:
    there = [one for one in columns if one is not None]
    conventions: dict[str, str] = {}
    for one in reversed(there):
        conventions |= one.conventions
    yield from _rows("", _METRICS, columns, conventions)
    for name in dict.fromkeys(name for one in there for name in one.transforms):
        found = [None if one is None else one.transforms.get(name) for one in columns]
        yield from _rows(name, _TRANSFORM_METRICS, found, conventions, f"/{name}")
    for name in dict.fromkeys(name for one in there for name in one.groups):
        groups = [None if one is None else one.groups.get(name) for one in columns]
        yield from _rows(f"group {name}", _GROUP_METRICS, groups, conventions)
    latents = [None if one is None else one.latents for one in columns]
    kinds = [replace(kind, label=kind.label.format(reference=reference)) for kind in _LATENTS]
    yield from _rows("latents", kinds, latents, conventions)
    for name, metric in LATENT_METRICS.items():
        values = tuple(None if one is None else one.latent_metrics.get(name) for one in columns)
        convention = f"{metric.formula} ({metric.source}); {metric.direction}"
        yield Row("latents", metric.label, metric.unit, f"latent/{name}", convention, values)


def _rows(
    subject: str,
    kinds: Sequence[_Kind],
    holders: Sequence[Any],
    conventions: Mapping[str, str],
    which: str = "",
) -> Iterator[Row]:
    for kind in kinds:
        values = tuple(_value(holder, kind.path) for holder in holders)
        key = f"{kind.key}{which}" if kind.key else ""
        said = conventions.get(kind.convention, "")
        yield Row(subject, kind.label, kind.unit, key, said, values)


def _value(holder: Any, path: str) -> float | None:
    for name in path.split("."):
        holder = None if holder is None else getattr(holder, name)
    value: float | None = holder
    return value


def interval(spread: Spread | Difference | None, unit: str) -> str:
    """The ends of a 95% interval with as many digits as its value, and the unit once."""
    if spread is None:
        return ""
    low, high = (number(end, unit, spread.value) for end in (spread.low, spread.high))
    return f"{low.removesuffix(unit).rstrip()} to {high}"


def difference_words(difference: Difference | None, unit: str) -> list[str]:
    """A difference with its interval, and whether it is larger than noise."""
    if difference is None:
        return ["", ""]
    value = f"{signed(difference.value, unit)} ({interval(difference, unit)})"
    if difference.is_identical:
        return [number(0.0, unit), "no, identical"]
    p = f"adjusted p{p_value(difference.adjusted_p)}"
    return [value, f"{'yes' if difference.is_larger_than_noise else 'no'}, {p}"]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; what is no `Markdown` yet is escaped."""
    lines = [f"| {' | '.join(map(markdown, head))} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(map(markdown, row))} |" for row in rows]


def count_images(images: int) -> str:
    return f"{images} image" + ("s" if images != 1 else "")
