"""`equivae fit`: a latent op in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markdown import Markdown

import equivae
from equivae.cli.inputs import given, images_from, load_model, number_or, transforms_of
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
    flag_of,
    opt,
    opt_of,
)
from equivae.cli.showing import console, plain
from equivae.errors import InputError
from equivae.files.writing import check_claim, check_name
from equivae.operators import FitOptions
from equivae.operators.options import NetworkOptions
from equivae.options import above, at_least, quoted

__all__ = ["fit"]


def fit(
    pretrained_model_name_or_path: Model,
    output_dir: OutputDir = Path("equivae-latent-op"),
    transforms: Annotated[
        str, opt("transforms", "The transform to fit, such as rot180.")
    ] = "rot180",
    train_data_dir: TrainDataDir = None,
    dataset_name: DatasetName = None,
    kernel_size: Annotated[str, opt("kernel_size", "Odd number of latent cells, or auto.")] = "5",
    method: Annotated[str, opt_of(FitOptions, "method")] = "linear",
    padding: Annotated[str, opt_of(FitOptions, "padding")] = "zeros",
    ridge: Annotated[Optional[float], opt_of(FitOptions, "ridge")] = None,
    involution: Annotated[
        bool, typer.Option("--involution", help="Project a 1x1 operator to eigenvalues of +1, -1.")
    ] = False,
    name: Annotated[
        Optional[str], opt("name", "Name of the fitted transform.", check=check_name)
    ] = None,
    resolution: Resolution = 256,
    max_samples: FewSamples = None,
    validation_split: Annotated[float, opt_of(FitOptions, "validation_split")] = 0.1,
    eval_batch_size: EvalBatchSize = 4,
    mixed_precision: Annotated[str, opt_of(FitOptions, "mixed_precision")] = "no",
    seed: Annotated[int, opt_of(FitOptions, "seed")] = 0,
    max_train_steps: Annotated[
        int,
        opt(
            "max_train_steps",
            "Steps of a network or of the decoded objective.",
            range=at_least(1),
        ),
    ] = 300,
    learning_rate: Annotated[
        float, opt("learning_rate", "Rate of these steps.", range=above(0))
    ] = 1e-3,
    width: Annotated[int, opt_of(NetworkOptions, "width")] = 64,
    layers: Annotated[int, opt_of(NetworkOptions, "layers")] = 3,
    network: Annotated[
        Optional[str], opt("network", "small, medium or large, instead of a width and layers.")
    ] = None,
    max_seconds: Annotated[float, opt_of(NetworkOptions, "max_seconds")] = 300.0,
    crop: Annotated[Optional[int], opt_of(NetworkOptions, "crop")] = None,
    objective: Annotated[str, opt_of(FitOptions, "objective")] = "latent",
    border: Annotated[bool, flag_of(FitOptions, "border")] = True,
    magnitude: Annotated[int, opt_of(FitOptions, "magnitude")] = 0,
    phases: Annotated[bool, flag_of(FitOptions, "phases")] = True,
    inverse: Annotated[bool, flag_of(FitOptions, "inverse")] = True,
    subfolder: Subfolder = None,
    variant: Variant = None,
    revision: Revision = None,
    model_config_name_or_path: ModelConfig = None,
    image_column: ImageColumn = None,
    split: Split = None,
    background: Background = None,
) -> None:
    """Fit a latent op in closed form, in seconds, the VAE untouched; `evaluate --latent_op` measures it."""
    source = images_from(train_data_dir, dataset_name, "train_data_dir")
    names = transforms_of(transforms)
    if len(names) != 1:
        raise InputError(
            f"one transform is fitted at a time, got {quoted(transforms)}; pass one name."
        )
    size: Any = number_or("kernel_size", kernel_size, "auto", "an odd number")
    options: dict[str, Any] = {
        "method": method,
        "padding": padding,
        "ridge": ridge,
        "involution": involution,
        "validation_split": validation_split,
        "eval_batch_size": eval_batch_size,
        "mixed_precision": mixed_precision,
        "seed": seed,
        "objective": objective,
        "border": border,
        "magnitude": magnitude,
        "phases": phases,
        "inverse": inverse,
    }
    FitOptions(size, **options)
    check_claim(output_dir)
    fitted: Any = equivae.fit_latent_op(
        load_model(
            pretrained_model_name_or_path, subfolder, variant, revision, model_config_name_or_path
        ),
        names[0],
        source,
        size,
        name=name,
        resolution=resolution,
        max_samples=max_samples,
        max_train_steps=max_train_steps,
        learning_rate=learning_rate,
        width=width,
        layers=layers,
        network=network,  # type: ignore[arg-type]
        max_seconds=max_seconds,
        crop=crop,
        **given(image_column=image_column, split=split, background=background),
        **options,
    )
    fitted.save(output_dir)
    reports = getattr(fitted, "reports", None) or {"": fitted.report}  # of a family, or of one op
    for report in reports.values():
        console.print(Markdown(report.to_markdown()))
    console.print(f"Written to [bold]{plain(output_dir)}[/].")
