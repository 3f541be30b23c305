"""The page of the demo: its table, what every way makes of one photograph, and where to go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from equivae.reporting.content import command_line, timestamp, versions
from equivae.reporting.page import render
from equivae.reporting.page_pictures import data_uri

__all__ = ["demo_page"]


def demo_page(
    table: Sequence[Sequence[str]],
    pictures: Sequence[tuple[str, Tensor, str]],
    folders: Sequence[str],
    settings: Mapping[str, Any],
) -> str:
    """The page.

    Args:
        table: the cells of the demo's table, its head first.
        pictures: caption, picture `(3, H, W)` in [0, 1] and number.
        folders: what lies beside the page.
        settings: of the demo.
    """
    head, *rows = table
    created = timestamp()
    return render(
        "demo.html",
        title="Demo",
        verdict="A latent turned by 180° decodes to the picture turned by 180°: five ways beside the "
        "untouched VAE",
        facts=["VAE embedded", f"seed {settings['seed']}", created[:10]],
        table=(head, rows),
        row={
            "tiles": [
                {"caption": caption, "error": number, "source": data_uri(shown)}
                for caption, shown, number in pictures
            ]
        },
        folders=folders,
        settings={key: str(value) for key, value in settings.items()},
        skipped=[],
        command=command_line(),
        versions=versions(),
        created=created,
    )
