"""What a report looks like where it is quoted: in a terminal, a notebook, a spreadsheet, a paper."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import escape

from equivae.evaluation.pairing import Difference
from equivae.evaluation.results import Metrics
from equivae.reporting.tables import markdown_table
from equivae.reporting.telling import conventions_of, notes_of, to_csv, to_latex, told
from equivae.reporting.text import markdown, readable

__all__ = ["Quotable"]

_SHORT = ("reconstruction PSNR", "round-trip PSNR", "equivariance gap")
_MOST = 24  # rows of a summary


class Quotable:
    """Numbers of one or several VAEs that can be quoted. A subclass has these three.

    Attributes:
        verdict: one sentence.
        columns: numbers by what their column is called.
        compared: differences from the first column, by the name of the other.
    """

    @property
    def verdict(self) -> str:
        raise NotImplementedError

    @property
    def columns(self) -> dict[str, Metrics]:
        raise NotImplementedError

    @property
    def compared(self) -> Mapping[str, Mapping[str, Difference]]:
        raise NotImplementedError

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

    def rows_with_certainty(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows of the whole table, with intervals or tests."""
        return told(self.columns, self.compared)

    def to_csv(self) -> str:
        """Every number as CSV: one line a number and VAE, with interval, test and convention.

        Full precision; seconds for times, [0, 1] units for what is shown in 8-bit steps.
        """
        return to_csv(self.columns, self.compared)

    def to_latex(self) -> str:
        """The numbers that have intervals as a LaTeX table, for `booktabs`, with what they go by below it."""
        return to_latex(self.columns, self.compared)

    def footnotes(self) -> list[str]:
        """What the numbers go by, and what was not measured, a sentence each."""
        return [*conventions_of(self.columns), *notes_of(self.columns)]

    def _short(self) -> tuple[list[str], list[list[str]]]:
        head, rows = self.rows_with_certainty()
        chosen = [row for row in rows if any(name in row[0] for name in _SHORT)]
        return head, chosen[:_MOST]

    def _notes(self) -> list[str]:
        return notes_of({name: one for name, one in self.columns.items() if one.notes})[:2]
