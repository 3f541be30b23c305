"""A comparison: several VAEs' numbers, a verdict and pictures, as JSON, Markdown, HTML and PNG."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from equivae.reporting.content import (
    SCHEMA,
    UNITS,
    check_formats,
    in_formats,
    json_types,
    save_files,
    versions,
)
from equivae.reporting.findings import ComparedFindings
from equivae.reporting.tables import markdown_table
from equivae.reporting.text import code, markdown

__all__ = ["Comparison"]


@dataclass(repr=False)
class Comparison(ComparedFindings):
    """What `compare` found.

    Attributes:
        metrics: label of a VAE to its numbers, in the order given.
        sources: label to where that VAE came from.
        panels: label to pictures of the same few images.
        seeds: what a training is called, to the labels of its seeds, where several were passed.
        settings: how the numbers came about.
        skipped: `(name, reason)` of images that could not be read.
        command: the command line that made it.
    """

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, of JSON types; infinite numbers become `None`."""
        content = {
            "schema": SCHEMA,
            "created": self.created,
            "verdict": self.verdict,
            "units": UNITS,
            "vaes": {
                label: {"source": self.sources[label], "metrics": asdict(one)}
                for label, one in self.metrics.items()
            },
            "differences": {
                label: {key: asdict(one) for key, one in found.items()}
                for label, found in self.differences.items()
            },
            "against_plain": {
                label: {name: asdict(one) for name, one in found.items()}
                for label, found in self.against_plain.items()
            },
            "seeds": self.seeds,
            "settings": self.settings,
            "skipped": [{"image": name, "reason": reason} for name, reason in self.skipped],
            "command": self.command,
            "versions": versions(),
        }
        return json_types(content)  # type: ignore[no-any-return]

    def to_markdown(self) -> str:
        """A short document: the verdict, the table, the figure."""
        lines = ["# Comparison of autoencoders", "", markdown(self.verdict), ""]
        lines += [*markdown_table(*self.rows_with_certainty()), ""]
        lines += [*(f"- {markdown(note)}" for note in self.footnotes()), ""]
        over_seeds = self.seed_table()
        if over_seeds is not None:
            lines += ["## Over seeds", "", *markdown_table(*over_seeds), ""]
            lines += ["Mean ± standard deviation over the seeds.", ""]
        lines += ["![Round-trip PSNR of every autoencoder](comparison.png)", ""]
        made = ", ".join(f"{name} {number}" for name, number in versions().items())
        lines += [f"Made {self.created} by {code(self.command)} with {made}."]
        lines += ["Errors are in [0, 1] units after clamping (peak 1), PSNR with them."]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """One page with everything in it."""
        from equivae.reporting.page import comparison_page

        return comparison_page(self)

    def save(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        figures: Sequence[str] = ("png",),
    ) -> Path:
        """Write `comparison.json`, `.md`, `.html`, `.csv`, `.tex` and the curves into a folder.

        Options and errors are those of `Report.save`.
        """
        formats = check_formats("figures", figures)
        texts = {
            "comparison.json": json.dumps(self.to_dict(), indent=1) + "\n",
            "comparison.md": self.to_markdown(),
            "comparison.html": self.to_html(),
            "comparison.csv": self.to_csv(),
            "comparison.tex": self.to_latex(),
        }
        drawn = {f"{name}.png": figure for name, figure in self.charts()}
        return save_files(folder, texts, in_formats(drawn, formats), overwrite=overwrite)
