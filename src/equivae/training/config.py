"""Every option of a fine-tune, named as in diffusers' training scripts, and how a recipe sets them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from equivae.errors import InputError, did_you_mean
from equivae.losses.catalogue import plain_options
from equivae.options import quoted
from equivae.secrets import redact
from equivae.training.options import (
    HubOptions,
    ImageOptions,
    ObjectiveOptions,
    OptimisationOptions,
    Precision,
    RunOptions,
    Train,
)
from equivae.training.recipes import RECIPES, Recipe, read_recipe

__all__ = [
    "RECIPES",
    "FinetuneConfig",
    "Precision",
    "Recipe",
    "Train",
    "find_recipe",
    "make_config",
]


# A dataclass takes its fields from the last base first.
@dataclass(frozen=True)
class FinetuneConfig(HubOptions, RunOptions, OptimisationOptions, ObjectiveOptions, ImageOptions):
    """Every option of `finetune`, with the defaults of the recipe `"equivae"`."""

    def to_dict(self) -> dict[str, Any]:
        """The options by name, without secrets; a callable reconstruction loss by its own name."""
        secret = {option.name for option in fields(self) if option.metadata["secret"]}
        content = {
            name: redact(value) if isinstance(value, str) else value
            for name, value in (
                (option.name, getattr(self, option.name)) for option in fields(self)
            )
            if name not in secret
        }
        if callable(self.reconstruction):
            content["reconstruction"] = getattr(
                self.reconstruction, "__name__", type(self.reconstruction).__name__
            )
        content["terms"] = {name: plain_options(one) for name, one in self.terms.items()}
        return content

    def fixed(self) -> dict[str, Any]:
        """The options that have to stay the same when a run is resumed."""
        free = {option.name for option in fields(self) if option.metadata["free"]}
        return {name: value for name, value in self.to_dict().items() if name not in free}


def find_recipe(recipe: str | Path | Recipe) -> Recipe:
    """A recipe by its name, from a YAML file, or as it is; `InputError`, with file and line, for a wrong one.

    ```python
    from equivae.training import find_recipe

    assert find_recipe("decoder").options == {"train": "decoder"}
    ```
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, str) and recipe in RECIPES:
        return RECIPES[recipe]
    if Path(recipe).suffix in (".yaml", ".yml") or Path(recipe).is_file():
        found = read_recipe(recipe)
        _check_recipe(found)
        return found
    raise InputError(
        f"unknown recipe {quoted(str(recipe))}.{did_you_mean(str(recipe)[:60], RECIPES)} A YAML file works "
        "too."
    )


def make_config(recipe: str | Path | Recipe, options: Mapping[str, Any]) -> FinetuneConfig:
    """The options of a recipe, with those given on top. `InputError` for an unknown name or value."""
    asked = find_recipe(recipe)
    known = [f.name for f in fields(FinetuneConfig)]
    for name in options:
        if name not in known:
            raise InputError(f"unknown option {name!r}.{did_you_mean(name, known)}")
    missing = [one for one in asked.incomplete if one in known and one not in options]
    if missing:
        raise InputError(
            f"{asked.origin} is of a run whose {missing[0]} no file can hold; pass {missing[0]} from Python, "
            "as that run did."
        )
    return FinetuneConfig(**{**asked.options, **options})


def _check_recipe(recipe: Recipe) -> None:
    """`InputError` with file and line for options that are unknown, secret or contradict one another."""
    known = {option.name: option for option in fields(FinetuneConfig)}

    def wrong(line: int, what: str) -> InputError:
        return InputError(f"{recipe.origin}, line {line}: {what}")

    for name in recipe.options:
        line = recipe.lines[f"options.{name}"]
        if name not in known:
            raise wrong(line, f"unknown option {quoted(name)}.{did_you_mean(name[:60], known)}")
        if known[name].metadata["secret"]:
            raise wrong(line, f"{name} is a secret, which no recipe holds; pass it when you run.")
    try:
        FinetuneConfig(**recipe.options)
    except InputError as error:
        said = str(error)
        named = [
            line
            for path, line in recipe.lines.items()
            if path.startswith("options.")
            and re.search(rf"\b{re.escape(path.split('.')[-1])}\b", said)
        ]
        raise wrong(max(named, default=recipe.lines.get("options", 1)), said) from error
