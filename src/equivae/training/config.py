"""Every option of a fine-tune, named as in diffusers' training scripts, and how a recipe sets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from equivae.errors import InputError, did_you_mean
from equivae.losses.catalogue import plain_options
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
from equivae.training.recipes import RECIPES, Recipe

__all__ = ["RECIPES", "FinetuneConfig", "Precision", "Recipe", "Train", "make_config"]


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


def make_config(recipe: str, options: Mapping[str, Any]) -> FinetuneConfig:
    """The options of a recipe, with those given on top. `InputError` for an unknown name or value."""
    if recipe not in RECIPES:
        raise InputError(f"unknown recipe {recipe!r}.{did_you_mean(recipe, RECIPES)}")
    known = [f.name for f in fields(FinetuneConfig)]
    for name in options:
        if name not in known:
            raise InputError(f"unknown option {name!r}.{did_you_mean(name, known)}")
    return FinetuneConfig(**{**RECIPES[recipe].options, **options})
