"""The curves of a report: losses, sweeps, spectra, and the bars of a comparison."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from equivae.evaluation.results import Metrics, Sweep
from equivae.reporting.text import any_letters, figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "AFTER",
    "BEFORE",
    "INK",
    "MUTED",
    "draw_comparison",
    "draw_losses",
    "draw_profiles",
    "draw_spectra",
    "draw_sweep",
    "series_colours",
    "to_svg",
]

INK, MUTED, GRID = "#1f2328", "#6e7781", "#d8dee4"
BEFORE, AFTER = "#bf3989", "#0969da"
# Okabe and Ito's colours, which stay apart for every kind of colour vision.
_SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b59a00")
_SIZE = (4.9, 3.3)
_SHORT = 16  # letters of a label, up to which two stand side by side
# In a page the colours follow the reader's theme.
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    BEFORE: "--before",
    AFTER: "--after",
    **{colour: f"--series-{i}" for i, colour in enumerate(_SERIES)},
}


def series_colours(count: int) -> list[str]:
    """Colours for so many VAEs; the last two repeat."""
    return [_SERIES[i % len(_SERIES)] for i in range(count)]


def draw_losses(
    history: Sequence[dict[str, float]], by: Literal["step", "epoch"] = "step"
) -> Figure:
    """Training and validation loss against optimiser steps, or their means against epochs.

    Args:
        history: records with `step`, `epoch` and `loss` or `validation_loss`.
        by: what the horizontal axis counts.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axis = _figure()
    drawn: list[float] = []
    for key, label, colour in (
        ("loss", "training", MUTED),
        ("validation_loss", "validation", AFTER),
    ):
        places, values = _curve([record for record in history if key in record], key, by)
        drawn += values
        if places:
            marker = "o" if by == "epoch" or key == "validation_loss" or len(places) == 1 else None
            axis.plot(
                places, values, color=colour, label=label, marker=marker, markersize=4, lw=1.6
            )
    if any(0 < loss < math.inf for loss in drawn):
        axis.set_yscale("log")
    _title(axis, "epoch" if by == "epoch" else "optimiser step", "loss, images in [-1, 1]")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    _legend(axis)
    return figure


def draw_sweep(sweeps: Mapping[str, Sweep], colours: Sequence[str]) -> Figure:
    """Round-trip PSNR against a parameter, one line per VAE; dashed, what it would be without a gap.

    Args:
        sweeps: label of a VAE to its sweep, all of one transform.
        colours: one per VAE.
    """
    from matplotlib.ticker import MultipleLocator

    figure, axis = _figure()
    one = next(iter(sweeps.values()))
    for (label, sweep), colour in zip(sweeps.items(), colours, strict=True):
        axis.plot(
            sweep.values,
            _finite(sweep.reconstruction_psnr),
            color=colour,
            lw=1.2,
            ls=(0, (4, 3)),
            alpha=0.75,
        )
        axis.plot(
            sweep.values,
            _finite(sweep.round_trip_psnr),
            color=colour,
            label=figure_text(label),
            lw=1.9,
            marker="o",
            markersize=3.5,
        )
    axis.plot([], [], color=MUTED, lw=1.2, ls=(0, (4, 3)), label="no gap")
    if one.parameter == "angle":
        axis.xaxis.set_major_locator(MultipleLocator(45))
        axis.xaxis.set_major_formatter("{x:.0f}°")
    name = "angle of rotation" if one.transform == "rotate" else f"{one.transform} {one.parameter}"
    _title(axis, name, "PSNR in dB")
    _legend(axis)
    return figure


def draw_spectra(lines: Mapping[str, tuple[Sequence[float], str]]) -> Figure:
    """Shares of the DCT energy against frequency.

    Args:
        lines: label to a spectrum and its colour.
    """
    figure, axis = _figure()
    for label, (values, colour) in lines.items():
        places = [(i + 1) / len(values) for i in range(len(values))]
        shares = [max(v, 1e-12) for v in values]
        axis.plot(places, shares, color=colour, label=figure_text(label), lw=1.8)
    axis.set_yscale("log")
    _title(axis, "frequency, 1 is the grid's highest", "share of the DCT energy")
    _legend(axis)
    return figure


def draw_profiles(lines: Mapping[str, tuple[Sequence[float], str]]) -> Figure:
    """Amplitudes of the block DCT in zigzag order, relative to the constant's.

    Args:
        lines: label to a profile and its colour.
    """
    figure, axis = _figure()
    for label, (values, colour) in lines.items():
        shown = [max(v, 1e-6) for v in values]
        axis.plot(range(len(shown)), shown, color=colour, label=figure_text(label), lw=1.8)
    axis.set_yscale("log")
    _title(axis, "coefficient of the 8x8 DCT, in zigzag order", "amplitude, the constant's is 1")
    _legend(axis)
    return figure


def draw_comparison(metrics: Mapping[str, Metrics], colours: Sequence[str]) -> Figure:
    """Reconstruction, and the round trip under every transform, of several VAEs; whiskers show 95%.

    Args:
        metrics: label of a VAE to what it was measured to do.
        colours: one per VAE.
    """
    names = list(dict.fromkeys(name for one in metrics.values() for name in one.transforms))
    rows = ["reconstruction", *names]
    figure, axis = _figure((_SIZE[0], max(2.2, 0.9 + 0.17 * len(rows) * (len(metrics) + 1.2))))
    step = 0.8 / len(metrics)
    for i, ((label, one), colour) in enumerate(zip(metrics.items(), colours, strict=True)):
        if label:
            axis.plot([], [], "o", color=colour, ms=5.5, label=figure_text(label))
        for j, row in enumerate(rows):
            key = "reconstruction_psnr" if j == 0 else f"round_trip_psnr/{row}"
            spread = one.spreads.get(key)
            if spread is None or not math.isfinite(spread.value):
                continue
            y = j + (i - (len(metrics) - 1) / 2) * step
            low, high = (v if math.isfinite(v) else spread.value for v in (spread.low, spread.high))
            axis.plot([low, high], [y, y], color=colour, lw=1.6, solid_capstyle="round")
            axis.plot([spread.value], [y], "o", color=colour, ms=5.5)
    axis.set_yticks(range(len(rows)), list(map(figure_text, rows)))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel("PSNR in dB", color=INK)
    axis.grid(False, axis="y")
    if any(metrics):
        figure.legend(
            frameon=False,
            fontsize=9,
            loc="outside upper left",
            ncols=1 if any(len(label) > _SHORT for label in metrics) else 2,
            labelcolor=INK,
        )
    return figure


def to_svg(figure: Figure, name: str) -> str:
    """A figure as inline SVG whose colours are the page's variables and whose letters are its own."""
    import matplotlib

    target = io.StringIO()
    with any_letters(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1, flags=re.DOTALL)
    text = re.sub(r"font: (\d+\.?\d*)px [^;\"]*", r"font-size: \1px", text)
    # Letters without a colour are black.
    text = text.replace("<svg ", '<svg role="img" style="fill: var(--ink)" ', 1)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    # Two figures on one page have to have different names for what they refer to.
    text = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', text)
    return re.sub(r'(href="|url\()#', rf"\1#{name}-", text)


def _figure(size: tuple[float, float] = _SIZE) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, facecolor="white", layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(MUTED)
    axis.tick_params(colors=MUTED, labelcolor=INK, labelsize=9)
    axis.grid(True, color=GRID, lw=0.7)
    axis.set_axisbelow(True)
    return figure, axis


def _title(axis: Axes, x: str, y: str) -> None:
    axis.set_xlabel(x, color=INK, fontsize=10)
    axis.set_ylabel(y, color=INK, fontsize=10)


def _legend(axis: Axes) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=9, labelcolor=INK)


def _finite(values: Sequence[float]) -> list[float]:
    """Infinite PSNRs leave a gap in the line."""
    return [value if math.isfinite(value) else math.nan for value in values]


def _curve(
    records: Sequence[dict[str, float]], key: str, by: str
) -> tuple[list[float], list[float]]:
    if by == "step":
        return [record["step"] for record in records], [record[key] for record in records]
    epochs = sorted({record["epoch"] for record in records})
    means = []
    for epoch in epochs:
        values = [record[key] for record in records if record["epoch"] == epoch]
        means.append(sum(values) / len(values))
    # A validation record carries the number of epochs done, a training record that of those before.
    shift = 1 if key == "loss" else 0
    return [epoch + shift for epoch in epochs], means
