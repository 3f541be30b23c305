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


def show(report: equivae.Report, folder: Path | None) -> None:
    if report.before is None:
        table = Table("metric", "value")
        for label, _, now in report.rows():
            table.add_row(plain(label), plain(now))
    else:
        table = Table("metric", "before", "after")
        for row in report.rows():
            table.add_row(*map(plain, row))
    console.print(table)
    conclude(report.verdict, report.skipped, folder)


def conclude(verdict: str, skipped: list[tuple[str, str]], folder: Path | None) -> None:
    console.print(plain(verdict))
    for name, reason in skipped:
        console.print(f"[yellow]skipped[/] {plain(name)}: {plain(reason)}")
    if folder is not None:
        console.print(f"Written to [bold]{plain(folder)}[/]: ", end="")
        console.print(plain(", ".join(sorted(p.name for p in folder.iterdir() if p.is_file()))))
