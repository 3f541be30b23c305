"""What a report and a comparison have to show, without the ways of showing it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from equivae.evaluation.results import Metrics, Panel, TransformMetrics
from equivae.reporting import charts
from equivae.reporting.content import command_line, timestamp
from equivae.reporting.tables import count_images, markdown_table, number, rows_of
from equivae.units import difference_db, rank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ComparedFindings", "Findings", "worst_transform"]


@dataclass
class Findings:
    """One VAE's numbers and pictures, perhaps beside another's; `Report` says what they are."""

    metrics: Metrics
    before: Metrics | None = None
    panels: list[Panel] = field(default_factory=list)
    panels_before: list[Panel] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    created: str = field(default_factory=timestamp)
    command: str = field(default_factory=command_line)

    @property
    def verdict(self) -> str:
        """One sentence: how far the worst transform is from a reconstruction, and how far it was."""
        now, count = self.metrics, count_images(self.metrics.images)
        if math.isnan(now.reconstruction_psnr):
            return (
                f"Nothing can be said of this VAE: its output is NaN or infinite for {_broken(now)} of "
                f"{count}."
            )
        reconstruction = number(now.reconstruction_psnr, "dB")
        if not now.transforms:
            return f"Reconstruction is {reconstruction} over {count}."
        name, worst = worst_transform(now)
        which = (
            f"under {name}" if len(now.transforms) == 1 else f"under {name}, the worst transform,"
        )
        if math.isnan(worst.equivariance_gap_db):
            return (
                f"There is no equivariance gap {which} to tell: the round trip has no finite error for "
                f"{_broken(now)} of {count}; reconstruction is {reconstruction}."
            )
        if self.before is None or name not in self.before.transforms:
            return (
                f"The equivariance gap {which} is {number(worst.equivariance_gap_db, 'dB')}: the round trip "
                f"has {number(worst.round_trip_psnr, 'dB')}, reconstruction {reconstruction}, over {count}."
            )
        old = self.before.transforms[name]
        if math.isnan(old.equivariance_gap_db):
            return (
                f"The equivariance gap {which} is {number(worst.equivariance_gap_db, 'dB')}, reconstruction "
                f"{reconstruction}, over {count}; the VAE before has no finite numbers."
            )
        change = difference_db(now.reconstruction_psnr, self.before.reconstruction_psnr)
        return (
            f"The equivariance gap {which} went from {old.equivariance_gap_db:.2f} to "
            f"{worst.equivariance_gap_db:.2f} dB while reconstruction changed by {change:+.2f} dB, over "
            f"{count}."
        )

    def rows(self) -> list[tuple[str, str, str]]:
        """The before/after table: `(metric, before, after)`; `before` is empty without one."""
        return [
            (label, cells[0], cells[1]) for label, cells in rows_of([self.before, self.metrics])
        ]

    def table(self) -> list[str]:
        """`rows` as the lines of a Markdown table."""
        if self.before is None:
            return markdown_table(
                ("metric", "value"), [(label, new) for label, _, new in self.rows()]
            )
        return markdown_table(("metric", "before", "after"), self.rows())

    def charts(self) -> Iterator[tuple[str, Figure]]:
        """The curves by name."""
        colours = [charts.BEFORE, charts.AFTER] if self.before else [charts.AFTER]
        measured = self._measured()
        for name in self.metrics.sweeps:
            sweeps = {label: m.sweeps[name] for label, m in measured.items() if name in m.sweeps}
            kept = [c for c, m in zip(colours, measured.values(), strict=True) if name in m.sweeps]
            yield f"sweep_{name}", charts.draw_sweep(sweeps, kept)
        spectra = {
            f"latents {label}" if self.before else "latents": (m.latents.spectrum, colour)
            for (label, m), colour in zip(measured.items(), colours, strict=True)
            if m.latents and m.latents.spectrum
        }
        if spectra and self.metrics.latents:
            image = (self.metrics.latents.image_spectrum, charts.MUTED)
            yield "spectrum", charts.draw_spectra({**spectra, "images": image})
        if self.history:
            yield "loss", charts.draw_losses(self.history)

    def _measured(self) -> dict[str, Metrics]:
        return {"before": self.before, "after": self.metrics} if self.before else {"": self.metrics}


@dataclass
class ComparedFindings:
    """Several VAEs' numbers and pictures; `Comparison` says what they are."""

    metrics: dict[str, Metrics]
    sources: dict[str, str]
    panels: dict[str, list[Panel]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    created: str = field(default_factory=timestamp)
    command: str = field(default_factory=command_line)

    @property
    def verdict(self) -> str:
        """One sentence: whose round trip is the best, by its worst transform; NaN is the worst."""
        count = count_images(next(iter(self.metrics.values())).images)
        sound = {k: one for k, one in self.metrics.items() if not _has_nan(one)}
        broken = [label for label in self.metrics if label not in sound]
        if not sound:
            return f"None of these VAEs gives finite numbers over {count}."
        without = f"; {', '.join(broken)}: no finite numbers" if broken else ""
        worst = {
            label: min((t.round_trip_psnr, name) for name, t in one.transforms.items())
            for label, one in sound.items()
            if one.transforms
        }
        if not worst:
            best = max(sound, key=lambda label: sound[label].reconstruction_psnr)
            value = sound[best].reconstruction_psnr
            return f"{best} reconstructs best, {value:.2f} dB over {count}{without}."
        best = max(worst, key=lambda label: worst[label][0])
        psnr, name = worst[best]
        others = [value for label, (value, _) in worst.items() if label != best]
        lead = difference_db(psnr, max(others)) if others else 0.0
        ahead = f", {lead:.2f} dB above the next" if lead > 0 else ""
        return (
            f"{best} has the best round trip: {psnr:.2f} dB under {name}, its worst transform"
            f"{ahead}, over {count}{without}."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """The table: a metric and its value for every VAE."""
        return [(label, *cells) for label, cells in rows_of(list(self.metrics.values()))]

    def charts(self) -> Iterator[tuple[str, Figure]]:
        """The curves by name: `comparison`, `sweep_<transform>` of sweeps, `spectrum`."""
        colours = charts.series_colours(len(self.metrics))
        yield "comparison", charts.draw_comparison(self.metrics, colours)
        for name in dict.fromkeys(name for one in self.metrics.values() for name in one.sweeps):
            there = [(k, m, c) for (k, m), c in zip(self.metrics.items(), colours, strict=True)]
            there = [(k, m, c) for k, m, c in there if name in m.sweeps]
            sweeps = {label: m.sweeps[name] for label, m, _ in there}
            yield f"sweep_{name}", charts.draw_sweep(sweeps, [c for _, _, c in there])
        latents = {label: one.latents for label, one in self.metrics.items()}
        spectra = {
            label: (one.spectrum, colour)
            for (label, one), colour in zip(latents.items(), colours, strict=True)
            if one and one.spectrum
        }
        images = [one.image_spectrum for one in latents.values() if one and one.image_spectrum]
        if spectra:
            lines = {**spectra, "images": (images[0], charts.MUTED)}
            yield "spectrum", charts.draw_spectra(lines)


def worst_transform(metrics: Metrics) -> tuple[str, TransformMetrics]:
    """That with the largest gap, or the first whose gap is no number."""
    return max(
        metrics.transforms.items(),
        key=lambda item: rank(item[1].equivariance_gap_db, larger_is_better=False),
    )


def _has_nan(metrics: Metrics) -> bool:
    trips = [one.round_trip_psnr for one in metrics.transforms.values()]
    return any(map(math.isnan, [metrics.reconstruction_psnr, *trips]))


def _broken(metrics: Metrics) -> int:
    """How many images have a number that is none."""
    columns = [metrics.per_image[key] for key in metrics.non_finite]
    return sum(not all(map(math.isfinite, row)) for row in zip(*columns, strict=True))
