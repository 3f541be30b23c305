"""`equivae recipes`: the list of recipes, or one of them as YAML."""

from __future__ import annotations

from typing import Annotated, Optional

import typer
from rich.table import Table

from equivae.cli.options import words_of
from equivae.cli.showing import console
from equivae.training.config import RECIPES, find_recipe
from equivae.training.recipes import ALIASES, recipe_text

__all__ = ["recipes"]


def recipes(
    name: Annotated[
        Optional[str],
        typer.Argument(help="Print this one, as YAML.", callback=words_of("name")),
    ] = None,
) -> None:
    """List the recipes, named sets of options for `equivae finetune`, or print one as YAML."""
    if name is not None:
        typer.echo(recipe_text(find_recipe(name)), nl=False)
        return
    table = Table("name", "what it does", "source", "differs", show_lines=True)
    for recipe in RECIPES.values():
        if recipe.name in ALIASES:
            table.add_row(recipe.name, f"An alias of {ALIASES[recipe.name]}.", "", "")
        else:
            table.add_row(recipe.name, recipe.summary, recipe.source, recipe.differs)
    console.print(table)
    console.print("`equivae recipes NAME` prints one with its options, as YAML for `--recipe`.")
