"""What a report looks like where it is quoted: in a terminal, a notebook, a spreadsheet, a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import escape

from equivae.evaluation.pairing import Difference
from equivae.evaluation.results import Metrics
from equivae.reporting.paper import Paper, to_latex
from equivae.reporting.tables import markdown_table
from equivae.reporting.telling import (
    certainty_of,
    conventions_of,
    fitted_words,
    not_measured_in,
    notes_of,
    to_csv,
    told,
)
from equivae.reporting.text import markdown, readable

__all__ = ["Quotable"]

_SHORT = ("reconstruction PSNR", "round-trip PSNR", "equivariance gap")
_MOST = 24  # rows of a summary


class Quotable:
    """Numbers of one or several VAEs that can be quoted. A subclass has these.

    Attributes:
        verdict: one sentence.
        columns: numbers by what their column is called.
        compared: differences from the first column, by the name of the other.
        against_plain: round-trip PSNR of every fitted transform minus that of its plain one, by column.
        settings: how the numbers came about.
        names: what the columns are called in a paper.
        reference: what drift is measured from.
    """

    settings: dict[str, Any]

    @property
    def verdict(self) -> str:
        raise NotImplementedError

    @property
    def columns(self) -> dict[str, Metrics]:
        raise NotImplementedError

    @property
    def compared(self) -> Mapping[str, Mapping[str, Difference]]:
        raise NotImplementedError

    @property
    def against_plain(self) -> Mapping[str, Mapping[str, Difference]]:
        raise NotImplementedError

    @property
    def names(self) -> list[str]:
        return list(self.columns)

    @property
    def reference(self) -> str:
        return "the baseline"

    def summary(self) -> str:
        """The verdict and the numbers that matter, with intervals or tests, in a few lines of text."""
        head, rows = self._short()
        table = [head, *rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        return "\n".join([self.verdict, "", *lines, *self._notes()])

    def __repr__(self) -> str:
        return self.summary()

    def _repr_markdown_(self) -> str:
        """For notebooks and chats."""
        head, rows = self._short()
        lines = [markdown(self.verdict), "", *markdown_table(head, rows)]
        notes = self._notes()
        return "\n".join([*lines, *("" for _ in notes[:1]), *(markdown(n) for n in notes)]) + "\n"

    def _repr_html_(self) -> str:
        """For notebooks: no script, no style but the notebook's own."""
        head, rows = self._short()
        shown = [f"<p><b>{escape(readable(self.verdict))}</b></p>", "<table>"]
        for tag, cells in (("th", head), *(("td", row) for row in rows)):
            inner = "".join(f"<{tag}>{escape(readable(cell))}</{tag}>" for cell in cells)
            shown.append(f"<tr>{inner}</tr>")
        shown.append("</table>")
        shown += [f"<p><small>{escape(readable(note))}</small></p>" for note in self._notes()]
        return "\n".join(shown)

    def rows_with_certainty(
        self, *, tested_only: bool = False
    ) -> tuple[list[str], list[list[str]]]:
        """Head and rows of the table, with intervals or tests.

        Args:
            tested_only: only the rows that were tested, where there is something to test against.
        """
        only = tested_only and any(self.compared.values())
        return told(self.columns, self.compared, self.reference, tested_only=only)

    def to_csv(self) -> str:
        """Every number as CSV: one line a number and VAE, with interval, test and convention.

        Full precision; seconds for times, [0, 1] units for what is shown in 8-bit steps.
        """
        return to_csv(self.columns, self.compared, self.against_plain, self.reference)

    def to_latex(self, rows: Sequence[str] | None = None) -> str:
        """A LaTeX table for `booktabs`, with what the numbers go by below it.

        Args:
            rows: which rows, in this order: names of metrics (`"round-trip PSNR"`, for every transform) or
                whole labels (`"rot180: equivariance gap"`); by default every number that has an interval.

        Two VAEs have a column for the difference and one for its adjusted p; a star marks a difference that
        is larger than noise. Raises `InputError` for a name that no row has.
        """
        paper = Paper(
            self.columns,
            self.names,
            self.compared,
            self.against_plain,
            self.settings,
            self.reference,
        )
        return to_latex(paper, rows)

    def footnotes(self) -> list[str]:
        """How fitted latent ops do against plain ones, what the numbers go by, and what was not measured."""
        fitted = fitted_words(self.columns, self.against_plain)
        return [*fitted, *conventions_of(self.columns), *notes_of(self.columns)]

    def _short(self) -> tuple[list[str], list[list[str]]]:
        head, rows = self.rows_with_certainty()
        chosen = [row for row in rows if any(name in row[0] for name in _SHORT)]
        return head, chosen[:_MOST]

    def _notes(self) -> list[str]:
        fitted = fitted_words(self.columns, self.against_plain)
        return [*fitted, *certainty_of(self.columns), *not_measured_in(self.columns)[:2]]
