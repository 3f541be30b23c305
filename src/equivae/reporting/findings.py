"""What a report and a comparison have to show, without the ways of showing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from equivae.evaluation.results import Metrics, Panel
from equivae.reporting import charts
from equivae.reporting.content import command_line, timestamp
from equivae.reporting.tables import count_images, markdown_table, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ComparedFindings", "Findings"]


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
        if not now.transforms:
            return f"Reconstruction is {now.reconstruction_psnr:.2f} dB over {count}."
        name, worst = max(now.transforms.items(), key=lambda item: item[1].equivariance_gap_db)
        which = (
            f"under {name}" if len(now.transforms) == 1 else f"under {name}, the worst transform,"
        )
        if self.before is None or name not in self.before.transforms:
            return (
                f"The equivariance gap {which} is {worst.equivariance_gap_db:.2f} dB: the round trip has "
                f"{worst.round_trip_psnr:.2f} dB, reconstruction {now.reconstruction_psnr:.2f} dB, over "
                f"{count}."
            )
        old = self.before.transforms[name]
        before, after = self.before.reconstruction_psnr, now.reconstruction_psnr
        change = 0.0 if before == after else after - before  # both may be infinite
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
        """One sentence: whose round trip is the best, by its worst transform."""
        count = count_images(next(iter(self.metrics.values())).images)
        worst = {
            label: min((t.round_trip_psnr, name) for name, t in one.transforms.items())
            for label, one in self.metrics.items()
            if one.transforms
        }
        if not worst:
            best = max(self.metrics, key=lambda label: self.metrics[label].reconstruction_psnr)
            value = self.metrics[best].reconstruction_psnr
            return f"{best} reconstructs best, {value:.2f} dB over {count}."
        best = max(worst, key=lambda label: worst[label][0])
        psnr, name = worst[best]
        others = [value for label, (value, _) in worst.items() if label != best]
        ahead = f", {psnr - max(others):.2f} dB above the next" if psnr > max(others) else ""
        return (
            f"{best} has the best round trip: {psnr:.2f} dB under {name}, its worst transform"
            f"{ahead}, over {count}."
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
