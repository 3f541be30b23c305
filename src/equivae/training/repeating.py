"""The recipe that a run writes: what it takes to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from equivae.training.options import HubOptions
from equivae.training.plan import Plan
from equivae.training.recipes import Recipe
from equivae.transforms import Transform, get_transform

__all__ = ["LORA", "RECIPE", "recipe_of"]

LORA, RECIPE = "lora", "recipe.yaml"
"""What a run calls its low-rank factors and its recipe, in its output folder."""

_OF_ONE_RUN = {"resume_from_checkpoint", *(one.name for one in fields(HubOptions))} - {"license"}


def recipe_of(plan: Plan) -> Recipe:
    """Every option of a run, its transforms, and the VAE and the images where they were named.

    What is uploaded, and from which checkpoint a run went on, is not part of it, nor is any secret. What no
    file can hold, such as a callable loss, is listed as incomplete.
    """
    config = plan.config
    missing = [] if all(map(_can_be_named, plan.transforms)) else ["transforms"]
    if callable(config.reconstruction):
        missing.append("reconstruction")
    if any(isinstance(v, nn.Module) for term in config.terms.values() for v in term.values()):
        missing.append("terms")
    options = {
        name: value
        for name, value in config.to_dict().items()
        if value is not None and name not in _OF_ONE_RUN and name not in missing
    }
    options["lr_warmup_steps"] = plan.warmup_steps
    names = None if "transforms" in missing else ",".join(t.name for t in plan.transforms)
    asked = plan.asked
    return Recipe(
        name=plan.recipe,
        summary=asked.summary,
        source=asked.source,
        options=options,
        differs=asked.differs,
        transforms=names,
        run={**_named(plan), **asked.run},
        incomplete=tuple(missing),
    )


def _named(plan: Plan) -> Mapping[str, str]:
    """The VAE and the images where they were given by name."""
    found: dict[str, Any] = {}
    if isinstance(plan.given, (str, Path)):
        found["pretrained_model_name_or_path"] = str(plan.given)
    if isinstance(plan.images, str):
        kind = "train_data_dir" if Path(plan.images).exists() else "dataset_name"
        found[kind] = plan.images
    return found


def _can_be_named(transform: Transform) -> bool:
    try:
        return get_transform(transform.name) == transform
    except (ValueError, TypeError):
        return False
