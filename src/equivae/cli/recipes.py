"""`equivae recipes`: the list of recipes."""

from __future__ import annotations

from rich.table import Table

from equivae.cli.showing import console
from equivae.training.config import RECIPES

__all__ = ["recipes"]


def recipes() -> None:
    """List the recipes: named sets of options for `equivae finetune`."""
    table = Table("name", "what it does", "source", "options", show_lines=True)
    for recipe in RECIPES.values():
        options = " ".join(f"{key}={value}" for key, value in recipe.options.items())
        table.add_row(recipe.name, recipe.summary, recipe.source, options or "the defaults")
    console.print(table)
