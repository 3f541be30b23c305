"""`equivae fit-group`: the latent ops of a whole group, from one pass over the images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import equivae
from equivae.cli.inputs import given, images_from, load_model, number_or
from equivae.cli.options import (
    Background,
    DatasetName,
    EvalBatchSize,
    FewSamples,
    ImageColumn,
    Model,
    ModelConfig,
    OutputDir,
    Resolution,
    Revision,
    Split,
    Subfolder,
    TrainDataDir,
    Variant,
    opt,
    opt_of,
)
from equivae.cli.showing import console, plain
from equivae.files.writing import check_claim
from equivae.operators import FitOptions, save_operators
from equivae.operators.options import NetworkOptions

__all__ = ["fit_group"]


def fit_group(
    pretrained_model_name_or_path: Model,
    output_dir: OutputDir = Path("equivae-latent-ops"),
    group: Annotated[str, opt("group", "c2, d2, c4 or d4.")] = "d4",
    train_data_dir: TrainDataDir = None,
    dataset_name: DatasetName = None,
    kernel_size: Annotated[str, opt("kernel_size", "Odd number of latent cells, or auto.")] = "5",
    basis: Annotated[
        str, opt("basis", "elements, or generators, from which the others are composed.")
    ] = "elements",
    method: Annotated[str, opt_of(FitOptions, "method")] = "linear",
    network: Annotated[
        Optional[str], opt("network", "small, medium or large: of a network or a conjugation.")
    ] = None,
    objective: Annotated[str, opt_of(FitOptions, "objective")] = "latent",
    max_train_steps: Annotated[int, opt_of(NetworkOptions, "max_train_steps")] = 300,
    learning_rate: Annotated[float, opt_of(NetworkOptions, "learning_rate")] = 1e-3,
    max_seconds: Annotated[float, opt_of(NetworkOptions, "max_seconds")] = 300.0,
    padding: Annotated[str, opt_of(FitOptions, "padding")] = "zeros",
    ridge: Annotated[Optional[float], opt_of(FitOptions, "ridge")] = None,
    magnitude: Annotated[int, opt_of(FitOptions, "magnitude")] = 0,
    mixed_precision: Annotated[str, opt_of(FitOptions, "mixed_precision")] = "no",
    resolution: Resolution = 256,
    max_samples: FewSamples = None,
    validation_split: Annotated[float, opt_of(FitOptions, "validation_split")] = 0.1,
    eval_batch_size: EvalBatchSize = 4,
    seed: Annotated[int, opt_of(FitOptions, "seed")] = 0,
    subfolder: Subfolder = None,
    variant: Variant = None,
    revision: Revision = None,
    model_config_name_or_path: ModelConfig = None,
    image_column: ImageColumn = None,
    split: Split = None,
    background: Background = None,
) -> None:
    """Fit the latent ops of a group, the VAE untouched; with `--method conjugation` its law holds exactly."""
    source = images_from(train_data_dir, dataset_name, "train_data_dir")
    elements = equivae.get_group(group)
    size: Any = number_or("kernel_size", kernel_size, "auto", "an odd number")
    options: dict[str, Any] = {
        "method": method,
        "objective": objective,
        "padding": padding,
        "ridge": ridge,
        "magnitude": magnitude,
        "mixed_precision": mixed_precision,
        "validation_split": validation_split,
        "eval_batch_size": eval_batch_size,
        "seed": seed,
    }
    FitOptions(size, **options)
    check_claim(output_dir)
    fitted = equivae.fit_latent_group(
        load_model(
            pretrained_model_name_or_path, subfolder, variant, revision, model_config_name_or_path
        ),
        elements,
        source,
        size,
        basis=basis,  # type: ignore[arg-type]
        network=network,  # type: ignore[arg-type]
        max_train_steps=max_train_steps,
        learning_rate=learning_rate,
        max_seconds=max_seconds,
        resolution=resolution,
        max_samples=max_samples,
        **given(image_column=image_column, split=split, background=background),
        **options,
    )
    save_operators(fitted, output_dir)
    names = ", ".join(sorted(path.name for path in output_dir.iterdir()))
    console.print(
        f"Products of elements differ from the element by {fitted.closure_error:.1e} of its norm at most."
    )
    console.print(f"Written to [bold]{plain(output_dir)}[/]: {plain(names)}.")
