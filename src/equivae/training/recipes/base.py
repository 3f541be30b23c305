"""What a recipe is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["RUN_FIELDS", "Recipe"]

RUN_FIELDS = (
    "pretrained_model_name_or_path",
    "subfolder",
    "variant",
    "revision",
    "model_config_name_or_path",
    "train_data_dir",
    "dataset_name",
    "validation_data_dir",
)
"""What a recipe may say of the VAE and the images of a run, in the words of the command line."""


@dataclass(frozen=True)
class Recipe:
    """A named set of options, what it is for, and where it comes from.

    Attributes:
        name: of the recipe; empty for one that only says what a run was given.
        summary: what it does, in one sentence.
        source: where its values come from.
        options: of a fine-tune, by name.
        differs: what it leaves out of the published system, or does otherwise.
        transforms: what is learned unless other transforms are given, comma-separated.
        run: the VAE and the images of the run that wrote it, as on the command line.
        incomplete: arguments of that run that no file can hold.
        origin: the file that it was read from.
        lines: in that file, of every field by its name.
    """

    name: str
    summary: str
    source: str
    options: Mapping[str, Any]
    differs: str = ""
    transforms: str | None = None
    run: Mapping[str, str] = field(default_factory=dict)
    incomplete: tuple[str, ...] = ()
    origin: str = field(default="", compare=False)
    lines: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
