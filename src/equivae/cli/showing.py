"""What the commands print."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import equivae

__all__ = ["conclude", "console", "plain", "show"]

console = Console()


def plain(text: object) -> str:
    """Text for the terminal that says what it says: no markup, no control characters."""
    from equivae.reporting.text import readable

    return escape(readable(text))


def show(report: equivae.Report | equivae.Comparison, folder: Path | None) -> None:
    """The table with intervals, or what was tested; what the numbers go by, the verdict, what was written."""
    head, rows = report.rows_with_certainty(tested_only=True)
    left = len(report.rows_with_certainty()[1]) - len(rows)
    table = Table(*map(plain, head))
    for row in rows:
        table.add_row(*map(plain, row))
    console.print(table)
    if left:
        name = "report.md" if isinstance(report, equivae.Report) else "comparison.md"
        where = (
            f"are in {folder / name}" if folder else "need output_dir, or to_markdown() in Python"
        )
        console.print(f"[dim]{left} more rows, which were not tested, {plain(where)}.[/]")
    for note in report.footnotes():
        console.print(f"[dim]{plain(note)}[/]")
    conclude(report.verdict, report.skipped, folder)


def conclude(verdict: str, skipped: list[tuple[str, str]], folder: Path | None) -> None:
    console.print(plain(verdict))
    for name, reason in skipped:
        console.print(f"[yellow]skipped[/] {plain(name)}: {plain(reason)}")
    if folder is not None:
        console.print(f"Written to [bold]{plain(folder)}[/]: ", end="")
        console.print(plain(", ".join(sorted(p.name for p in folder.iterdir() if p.is_file()))))
