"""`equivae finetune`: train a VAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Optional

import equivae
from equivae.cli.inputs import given, images_from, load_model, transforms_of
from equivae.cli.options import (
    DatasetName,
    GivenModel,
    GivenTransforms,
    ModelConfig,
    OutputDir,
    Revision,
    Subfolder,
    TrainDataDir,
    Variant,
    opt,
    with_config,
)
from equivae.cli.showing import console, plain, show
from equivae.errors import InputError
from equivae.processes import process_state
from equivae.training.config import Recipe, find_recipe, make_config
from equivae.training.done import done_step

__all__ = ["finetune"]

_OF_THE_VAE = ("subfolder", "variant", "revision", "model_config_name_or_path")
_OF_THE_IMAGES = ("train_data_dir", "dataset_name")


@with_config
def finetune(
    pretrained_model_name_or_path: GivenModel = None,
    output_dir: OutputDir = Path("equivae-out"),
    transforms: GivenTransforms = None,
    train_data_dir: TrainDataDir = None,
    dataset_name: DatasetName = None,
    validation_data_dir: Annotated[
        Optional[Path], opt("validation_data_dir", "A folder of images for the report.")
    ] = None,
    recipe: Annotated[
        Optional[str],
        opt(
            "recipe",
            "A named set of options, see `equivae recipes`, or a YAML file, such as recipe.yaml of a run, "
            "which repeats it; else what suits the VAE.",
        ),
    ] = None,
    subfolder: Subfolder = None,
    variant: Variant = None,
    revision: Revision = None,
    model_config_name_or_path: ModelConfig = None,
    **options: Any,
) -> None:
    """Fine-tune a VAE so that a transform of the latent decodes to the same transform of the image."""
    asked = Recipe("", "", "", {}) if recipe is None else find_recipe(recipe)
    words = given(
        pretrained_model_name_or_path=pretrained_model_name_or_path,
        train_data_dir=train_data_dir,
        dataset_name=dataset_name,
        validation_data_dir=validation_data_dir,
        subfolder=subfolder,
        variant=variant,
        revision=revision,
        model_config_name_or_path=model_config_name_or_path,
    )
    run = _run(words, asked.run)
    if "pretrained_model_name_or_path" not in run:
        raise InputError(
            "equivae finetune needs --pretrained_model_name_or_path, or a --recipe that names a VAE; "
            "`equivae finetune --help` lists its options."
        )
    images = images_from(
        Path(run["train_data_dir"]) if "train_data_dir" in run else None,
        run.get("dataset_name"),
        "train_data_dir",
    )
    names = None if transforms is None else transforms_of(transforms)
    make_config(asked if asked.name else "equivae", options)
    model = load_model(run["pretrained_model_name_or_path"], *map(run.get, _OF_THE_VAE))
    held_out = run.get("validation_data_dir")
    further: dict[str, Any] = {
        "recipe": replace(asked, run=run),
        "validation_images": None if held_out is None else Path(held_out),
    }
    done = done_step(output_dir, options, vae=model, images=images, transforms=names, **further)
    if done is not None:
        if process_state().is_main_process:
            console.print(f"Step {done} of {done} is done; the report is in {plain(output_dir)}.")
        return
    result = equivae.finetune(model, images, names, output_dir, **further, **options)
    if process_state().is_main_process:
        settings = result.report.settings
        trained, whole = settings["trained_parameters"], settings["vae_parameters"]
        console.print(f"Trained {trained:,} numbers; the VAE has {whole:,}.")
        show(result.report, output_dir)


def _run(words: Mapping[str, Any], recipe: Mapping[str, str]) -> dict[str, str]:
    """The VAE and the images of a run: what was given, and what its recipe says of what was not."""
    left = dict(recipe)
    if "pretrained_model_name_or_path" in words:
        left = {name: value for name, value in left.items() if name not in _OF_THE_VAE}
    if any(name in words for name in _OF_THE_IMAGES):
        dropped = (*_OF_THE_IMAGES, "validation_data_dir")
        left = {name: value for name, value in left.items() if name not in dropped}
    return {**left, **{name: str(value) for name, value in words.items()}}
