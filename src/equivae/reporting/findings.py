"""What a report and a comparison have to show, without the ways of showing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equivae.evaluation.against_plain import fitted_against_plain
from equivae.evaluation.pairing import Difference
from equivae.evaluation.results import Metrics, Panel
from equivae.reporting import charts
from equivae.reporting.content import command_line, timestamp
from equivae.reporting.probes import Probes, Row, flat_rows, lie_rows
from equivae.reporting.quoting import Quotable
from equivae.reporting.tables import markdown_table, rows_of
from equivae.reporting.telling import differences_of, told_over_seeds
from equivae.reporting.verdicts import verdict_of, verdict_of_several

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ComparedFindings", "Findings"]


@dataclass(repr=False)
class Findings(Quotable):
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
    probes: dict[str, Probes] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """One sentence: how far the worst transform is from a reconstruction, and how far it was."""
        return verdict_of(self.metrics, self.before, self.differences)

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """How the numbers differ from those before, with intervals and tests; empty without any."""
        return differences_of(self.before, self.metrics, self.settings)

    @property
    def compared(self) -> dict[str, dict[str, Difference]]:
        """`differences`, by the name of their column."""
        return {"after": self.differences} if self.differences else {}

    @cached_property
    def against_plain(self) -> dict[str, dict[str, Difference]]:
        """How much better every fitted latent op is than its plain one, by the name of the column."""
        found = fitted_against_plain(self.metrics, int(self.settings.get("seed", 0)))
        return {"value" if self.before is None else "after": found} if found else {}

    @property
    def names(self) -> list[str]:
        """The VAEs' own names; `before` and `after` where one was made from the other."""
        if self.before is None:
            return [_short(self.settings.get("vae", "value"))]
        if "baseline" not in self.settings:
            return list(self.columns)
        baseline, own = (_short(self.settings[key]) for key in ("baseline", "vae"))
        return [f"{baseline} (baseline)" if baseline == own else baseline, own]

    @property
    def columns(self) -> dict[str, Metrics]:
        """The numbers by what their column is called."""
        if self.before is None:
            return {"value": self.metrics}
        return {"before": self.before, "after": self.metrics}

    def rows(self) -> list[tuple[str, str, str]]:
        """The before/after table: `(metric, before, after)`; `before` is empty without one."""
        return [
            (label, cells[0], cells[1]) for label, cells in rows_of([self.before, self.metrics])
        ]

    def table(self) -> list[str]:
        """The numbers with intervals, or with tests against the VAE before, as lines of a Markdown table."""
        return markdown_table(*self.rows_with_certainty())

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
        profiles = {
            f"latents {label}" if self.before else "latents": (m.latents.profile, colour)
            for (label, m), colour in zip(measured.items(), colours, strict=True)
            if m.latents and m.latents.profile
        }
        if profiles and self.metrics.latents:
            image = (self.metrics.latents.image_profile, charts.MUTED)
            yield "profile", charts.draw_profiles({**profiles, "images": image})
        if self.history:
            yield "loss", charts.draw_losses(self.history)

    def probed(self) -> dict[str, list[Row]]:
        """The rows of `flat_field` and of `lie`, as far as there are any."""
        found = {"flat_field": flat_rows(self.probes), "lie": lie_rows(self.probes)}
        return {name: rows for name, rows in found.items() if rows}

    def _measured(self) -> dict[str, Metrics]:
        return {"before": self.before, "after": self.metrics} if self.before else {"": self.metrics}


def _short(source: object) -> str:
    """The last part of a path or of a name on the hub."""
    return Path(str(source)).name or str(source)


@dataclass(repr=False)
class ComparedFindings(Quotable):
    """Several VAEs' numbers and pictures; `Comparison` says what they are."""

    metrics: dict[str, Metrics]
    sources: dict[str, str]
    panels: dict[str, list[Panel]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    created: str = field(default_factory=timestamp)
    command: str = field(default_factory=command_line)
    seeds: dict[str, list[str]] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """One sentence: whose round trip is the best, by its worst transform; NaN is the worst."""
        return verdict_of_several(self.metrics, self._seed)

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference]]:
        """How every other VAE differs from the first, by label, with intervals and tests."""
        first, *others = self.metrics.items()
        return {label: differences_of(first[1], one, self.settings) for label, one in others}

    @property
    def compared(self) -> dict[str, dict[str, Difference]]:
        """`differences`."""
        return self.differences

    @cached_property
    def against_plain(self) -> dict[str, dict[str, Difference]]:
        """How much better every fitted latent op is than its plain one, by label."""
        found = {k: fitted_against_plain(one, self._seed) for k, one in self.metrics.items()}
        return {label: one for label, one in found.items() if one}

    @property
    def reference(self) -> str:
        """The VAE that drift is measured from: the first."""
        return next(iter(self.metrics))

    @property
    def columns(self) -> dict[str, Metrics]:
        """The numbers by what their column is called."""
        return self.metrics

    @property
    def _seed(self) -> int:
        return int(self.settings.get("seed", 0))

    def rows(self) -> list[tuple[str, ...]]:
        """The table: a metric and its value for every VAE."""
        found = rows_of(list(self.metrics.values()), self.reference)
        return [(label, *cells) for label, cells in found]

    def seed_table(self) -> tuple[list[str], list[list[str]]] | None:
        """Head and rows of mean and standard deviation over seeds; `None` without any."""
        return told_over_seeds(self.metrics, self.seeds, self.reference) if self.seeds else None

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
        profiles = {
            label: (one.profile, colour)
            for (label, one), colour in zip(latents.items(), colours, strict=True)
            if one and one.profile
        }
        grids = [one.image_profile for one in latents.values() if one and one.image_profile]
        if profiles:
            yield "profile", charts.draw_profiles({**profiles, "images": (grids[0], charts.MUTED)})
