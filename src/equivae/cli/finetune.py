"""`equivae finetune`: train a VAE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import equivae
from equivae.cli.inputs import images_from, load_model, transforms_of
from equivae.cli.options import (
    DatasetName,
    Model,
    ModelConfig,
    OutputDir,
    Revision,
    Subfolder,
    TrainDataDir,
    Transforms,
    Variant,
    opt,
    with_config,
)
from equivae.cli.showing import show
from equivae.processes import process_state
from equivae.training.config import make_config

__all__ = ["finetune"]


@with_config
def finetune(
    pretrained_model_name_or_path: Model,
    output_dir: OutputDir = Path("equivae-out"),
    transforms: Transforms = "rot180",
    train_data_dir: TrainDataDir = None,
    dataset_name: DatasetName = None,
    validation_data_dir: Annotated[
        Optional[Path], opt("validation_data_dir", "A folder of images for the report.")
    ] = None,
    recipe: Annotated[
        Optional[str],
        opt("recipe", "A named set of options, see `equivae recipes`; else what suits the VAE."),
    ] = None,
    subfolder: Subfolder = None,
    variant: Variant = None,
    revision: Revision = None,
    model_config_name_or_path: ModelConfig = None,
    **options: Any,
) -> None:
    """Fine-tune a VAE so that a transform of the latent decodes to the same transform of the image."""
    source = images_from(train_data_dir, dataset_name, "train_data_dir")
    names = transforms_of(transforms)
    make_config(recipe or "equivae", options)
    result = equivae.finetune(
        load_model(
            pretrained_model_name_or_path, subfolder, variant, revision, model_config_name_or_path
        ),
        source,
        names,
        output_dir,
        recipe=recipe,
        validation_images=validation_data_dir,
        **options,
    )
    if process_state().is_main_process:
        show(result.report, output_dir)
