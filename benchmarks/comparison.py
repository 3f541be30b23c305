"""The table and the figure of arms trained beside each other, from what `sotemix_rot180.py` kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curves import Point, time_to

LEVELS_BELOW_RECONSTRUCTION = (3.0, 2.0, 1.0, 0.5)


def curve_of(arm: dict[str, Any]) -> list[Point]:
    return [Point(**point) for point in arm["curve"]]


def table(results: dict[str, Any]) -> str:
    """The arms at the end, the seconds to each level, and how many times faster than the published loop."""
    published = results["arms"].get("published")
    published_curve = curve_of(published) if published else []
    alone: set[str] = set()
    base = results["untouched"]["reconstruction_psnr"]
    levels = [base - below for below in LEVELS_BELOW_RECONSTRUCTION]
    head = ["", "seconds", "images seen", "reconstruction", "round trip"]
    head += [f"seconds to {level:.1f} dB" for level in levels]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---|" * (len(head) - 1)]
    untouched = results["untouched"]
    lines.append(
        f"| untouched | | | {base:.2f} dB | {untouched['round_trip_psnr']:.2f} dB |"
        + " |" * len(levels)
    )
    for arm in results["arms"].values():
        curve = curve_of(arm)
        first, last = curve[0], curve[-1]
        if first.seconds:
            cells = [f"{first.seconds:.0f}", "", f"{first.reconstruction_psnr:.2f} dB"]
            cells += [f"{first.round_trip_psnr:.2f} dB", *[""] * len(levels)]
            name = arm["name"].split(",")[0]
            if name not in alone:
                lines.append(f"| {name} alone | {' | '.join(cells)} |")
            alone.add(name)
        cells = [f"{last.seconds:.0f}", f"{last.images_seen}", f"{last.reconstruction_psnr:.2f} dB"]
        cells.append(f"{last.round_trip_psnr:.2f} dB")
        for level in levels:
            found = time_to(curve, level)
            if found is None or published is None or arm is published:
                cells.append("not reached" if found is None else f"{found:.0f}")
                continue
            reached = time_to(published_curve, level)
            more = "" if reached else "over "
            ratio = (reached or published_curve[-1].seconds) / found
            if more and ratio < 1:  # it had less time
                cells.append(f"{found:.0f}")
                continue
            cells.append(f"{found:.0f} ({more}{ratio:.{0 if ratio > 3 else 1}f}x)")
        lines.append(f"| {arm['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """Round trip and reconstruction against seconds and against images seen."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(11, 7.6), dpi=150, facecolor="white", layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    base = results["untouched"]["reconstruction_psnr"]
    colours = {
        "published": "#6e7781",
        "published_best": "#24292f",
        "eq_vae": "#bc4c00",
        "haku_latent": "#e0a000",
        "reconstruction": "#afb8c1",
        "plain": "#8250df",
        "plain_whole": "#c297ff",
        "fitted": "#0969da",
        "fitted_weight_1": "#54aeff",
        "symmetrized": "#1a7f37",
    }
    for key, arm in results["arms"].items():
        curve = curve_of(arm)
        for column, attribute in enumerate(("seconds", "images_seen")):
            shown = [p for p in curve if getattr(p, attribute) > 0]
            places = [getattr(p, attribute) for p in shown]
            for row, value in enumerate(("round_trip_psnr", "reconstruction_psnr")):
                axes[row][column].plot(
                    places,
                    [getattr(p, value) for p in shown],
                    "o-",
                    ms=3,
                    lw=1.6,
                    color=colours[key],
                    label=arm["name"],
                )
    for row, name in enumerate(("round trip under rot180", "reconstruction")):
        axes[row][0].set_ylabel(f"{name}, PSNR in dB")
        for column, unit in enumerate(("processor seconds, one thread", "images seen")):
            axis = axes[row][column]
            axis.axhline(base, color="#cf222e", lw=1, ls="--", label="untouched reconstruction")
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_xlabel(unit)
            axis.grid(True, color="#eaeef2", lw=0.7)
            axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(f"rot180 on {results['model']}, {results['test_images']} test images")
    figure.savefig(path)
