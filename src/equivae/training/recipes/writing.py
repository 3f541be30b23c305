"""Writing a recipe as YAML, as `parse_recipe` reads it."""

from __future__ import annotations

from typing import Any

import yaml

from equivae.training.recipes.base import Recipe

__all__ = ["recipe_text"]


def recipe_text(recipe: Recipe) -> str:
    """The YAML of a recipe; what it does not say is left out."""
    content: dict[str, Any] = {
        "name": recipe.name,
        "summary": recipe.summary,
        "source": recipe.source,
        "differs": recipe.differs,
        "transforms": recipe.transforms,
        "options": dict(recipe.options),
        "run": dict(recipe.run),
        "incomplete": list(recipe.incomplete),
    }
    shown = {name: value for name, value in content.items() if value or name == "options"}
    text: str = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100)
    return text
