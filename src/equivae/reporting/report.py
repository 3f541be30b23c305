"""The report: numbers before and after, a verdict, and pictures, as JSON, Markdown, HTML and PNG."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equivae.evaluation.results import Panel
from equivae.reporting.content import (
    SCHEMA,
    UNITS,
    check_formats,
    in_formats,
    json_types,
    save_files,
    versions,
)
from equivae.reporting.findings import Findings
from equivae.reporting.overview import draw_overview, overview_of
from equivae.reporting.probes import draw_rows
from equivae.reporting.tables import count_images, markdown_table
from equivae.reporting.text import code, file_names, markdown
from equivae.reporting.widths import check_width, fit_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report"]


@dataclass(repr=False)
class Report(Findings):
    """What `evaluate` and `finetune` found.

    Attributes:
        metrics: the numbers of the VAE (of the fine-tuned one, after `finetune`).
        before: the numbers of the VAE that it is compared with, or `None`.
        panels: pictures of a few images, and `panels_before` those of the VAE compared with.
        probes: flat fields and maps of Lie derivatives, by what the VAE is called here, with `metrics`
            `"paper"` or `"all"`.
        history: records of the training loss: `step`, `epoch`, `loss`, `validation_loss`.
        settings: how the numbers came about: data, resolution, options, seconds.
        skipped: `(name, reason)` of images that could not be read.
        command: the command line that made it.

    ```python
    import equivae

    vae = equivae.zoo.load()
    report = equivae.evaluate(vae, equivae.data.dead_leaves(2, 64), transforms="rot180")
    assert report.metrics.transforms["rot180"].equivariance_gap_db > 0
    print(report)  # short, as it is in a notebook
    print(report.to_markdown())
    ```
    """

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, of JSON types; infinite numbers become `None`.

        `docs/report.md` describes it.
        """
        content = {
            "schema": SCHEMA,
            "created": self.created,
            "verdict": self.verdict,
            "units": UNITS,
            "metrics": asdict(self.metrics),
            "before": None if self.before is None else asdict(self.before),
            "differences": {key: asdict(one) for key, one in self.differences.items()},
            "against_plain": {
                name: asdict(one)
                for found in self.against_plain.values()
                for name, one in found.items()
            },
            "history": self.history,
            "settings": self.settings,
            "skipped": [{"image": name, "reason": reason} for name, reason in self.skipped],
            "command": self.command,
            "versions": versions(),
        }
        return json_types(content)  # type: ignore[no-any-return]

    def to_markdown(self) -> str:
        """A short document: the verdict, the table, the pictures, the settings."""
        lines = ["# Equivariance report", "", markdown(self.verdict), "", *self.table(), ""]
        lines += [*(f"- {markdown(note)}" for note in self.footnotes()), ""]
        for name, caption in self.figure_captions().items():
            lines += [f"![{markdown(caption)}]({name})", ""]
        if self.skipped:
            lines += [f"Skipped {count_images(len(self.skipped))} that could not be read:", ""]
            lines += [f"- {code(name)}: {markdown(reason)}" for name, reason in self.skipped] + [""]
        if self.settings:
            rows = [(key, code(value, in_table=True)) for key, value in self.settings.items()]
            lines += ["## Settings", "", *markdown_table(("setting", "value"), rows), ""]
        made = ", ".join(f"{name} {number}" for name, number in versions().items())
        lines += [f"Made {self.created} by {code(self.command)} with {made}."]
        lines += ["Errors are in [0, 1] units after clamping (peak 1), PSNR with them."]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """One page with everything in it: numbers, pictures, curves, and how it was made."""
        from equivae.reporting.page import report_page

        return report_page(self)

    def save(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        figures: Sequence[str] = ("png",),
    ) -> Path:
        """Write `report.json`, `.md`, `.html`, `.csv`, `.tex` and the figures into a folder.

        Args:
            folder: is made where it is not there.
            overwrite: write over a report that it holds.
            figures: formats of the figures: `"png"`, `"pdf"`, `"svg"`.

        Every file is written under a temporary name and renamed. Raises `InputError` if the folder holds a
        report already, unless `overwrite` is set, and for another format.
        """
        formats = check_formats("figures", figures)
        texts = {
            "report.json": json.dumps(self.to_dict(), indent=1) + "\n",
            "report.md": self.to_markdown(),
            "report.html": self.to_html(),
            "report.csv": self.to_csv(),
            "report.tex": self.to_latex(),
        }
        return save_files(folder, texts, in_formats(self.figures(), formats), overwrite=overwrite)

    def figures(self, *, width: float | None = None) -> dict[str, Figure]:
        """The pictures by file name.

        Args:
            width: of every figure in inches, such as a paper's text width; letters then have at least 7
                points, and titles are wrapped to their column. `None` leaves them as they are saved.

        `overview.png`, `panels_<transform>.png` and `latents_<transform>.png`, `flat_field.png` and
        `lie.png` of probes, `sweep_<transform>.png` of sweeps, `spectrum.png`, `profile.png`, and
        `loss.png` after a training. Raises `InputError` for a width that is none.
        """
        from equivae.reporting.figures import draw_latents, draw_panels

        inches = None if width is None else check_width(width)
        drawn: dict[str, Figure] = {}
        overview = overview_of(self.panels, self.panels_before)
        if overview is not None:
            drawn["overview.png"] = draw_overview(overview)
        for transform, file in self._pictured().items():
            after, before = self._panels_of(transform)
            drawn[f"panels_{file}.png"] = draw_panels(after, before)
            if after[0].latent is not None and after[0].latent.ndim == 3:
                drawn[f"latents_{file}.png"] = draw_latents(after, before)
        for name, rows in self.probed().items():
            drawn[f"{name}.png"] = draw_rows(rows)
        drawn |= {f"{name}.png": figure for name, figure in self.charts()}
        if inches is None:
            return drawn
        return {name: fit_width(figure, inches) for name, figure in drawn.items()}

    def _pictured(self) -> dict[str, str]:
        """The transforms that there are pictures of, and what their files are called."""
        return file_names(list(dict.fromkeys(panel.transform for panel in self.panels)))

    def _panels_of(self, transform: str) -> tuple[list[Panel], list[Panel]]:
        after = [p for p in self.panels if p.transform == transform]
        return after, [p for p in self.panels_before if p.transform == transform]

    def figure_captions(self) -> dict[str, str]:
        """What each picture shows, by file name."""
        names = {}
        overview = overview_of(self.panels, self.panels_before)
        if overview is not None:
            names["overview.png"] = (
                f"{overview.image} under {overview.transform}, and what the moved latents decode to"
            )
        for transform, file in self._pictured().items():
            first = self._panels_of(transform)[0][0]
            names[f"panels_{file}.png"] = (
                f"Original, reconstruction, decode of the latent under {transform}, and that moved back"
            )
            if first.latent is not None and first.latent.ndim == 3:
                names[f"latents_{file}.png"] = (
                    f"Latents in colour: plain, under {transform}, and of the moved image"
                )
        said = {
            "flat_field": "Flat field: deviation of decoded constants; grey is none",
            "lie": "Lie derivatives of the decoder: white where it follows the least",
        }
        names |= {f"{name}.png": said[name] for name in self.probed()}
        for sweep in self.metrics.sweeps.values():
            names[f"sweep_{sweep.transform}.png"] = (
                f"PSNR against the {sweep.parameter} of {sweep.transform}"
            )
        if self.metrics.latents and self.metrics.latents.spectrum:
            names["spectrum.png"] = "DCT spectra of latents and images, by diagonal"
        if self.metrics.latents and self.metrics.latents.profile:
            names["profile.png"] = "DCT amplitudes of latents and images, in zigzag order"
        if self.history:
            names["loss.png"] = "Training and validation loss"
        return names
