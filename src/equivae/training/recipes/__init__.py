"""Recipes: named sets of options of a fine-tune, each a YAML file in this folder or one of the user's."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

from equivae.training.recipes.base import Recipe
from equivae.training.recipes.reading import parse_recipe, read_recipe
from equivae.training.recipes.writing import recipe_text

__all__ = ["ALIASES", "RECIPES", "Recipe", "parse_recipe", "read_recipe", "recipe_text"]

ALIASES = {"published": "published-rot180"}
"""Other names of recipes."""


def _shipped() -> dict[str, Recipe]:
    found = {}
    for file in sorted(files(__name__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            recipe = parse_recipe(file.read_text(encoding="utf-8"), file.name)
            found[recipe.name] = recipe
    for old, name in ALIASES.items():
        found[old] = replace(found[name], name=old)
    return found


RECIPES: dict[str, Recipe] = _shipped()
"""Every recipe of the library by its name."""
