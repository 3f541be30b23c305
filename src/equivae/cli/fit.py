"""`equivae fit`: a latent op in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markdown import Markdown
from rich.markup import escape

import equivae
from equivae.cli.inputs import images_from, load_model, transforms_of
from equivae.cli.options import (
    DatasetName,
    EvalBatchSize,
    MaxSamples,
    Model,
    ModelConfig,
    OutputDir,
    Resolution,
    Revision,
    Subfolder,
    TrainDataDir,
    Variant,
    opt,
)
from equivae.cli.showing import console
from equivae.errors import InputError
from equivae.operators import FitOptions

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
    method: Annotated[
        str, opt("method", "linear, or network: a small residual network on top of it.")
    ] = "linear",
    padding: Annotated[
        str, opt("padding", "Cells beyond the border: zeros, replicate or reflect.")
    ] = "zeros",
    ridge: Annotated[
        Optional[float], opt("ridge", "Of the least squares; else held-out images choose it.")
    ] = None,
    involution: Annotated[
        bool, typer.Option("--involution", help="Project a 1x1 operator to eigenvalues of +1, -1.")
    ] = False,
    name: Annotated[Optional[str], opt("name", "Of the fitted transform.")] = None,
    resolution: Resolution = 256,
    max_samples: MaxSamples = None,
    validation_split: Annotated[
        float, opt("validation_split", "Share of the images held out.")
    ] = 0.1,
    eval_batch_size: EvalBatchSize = 4,
    mixed_precision: Annotated[str, opt("mixed_precision", "no, fp16 or bf16.")] = "no",
    seed: Annotated[int, opt("seed", "Of the split and of the network.")] = 0,
    max_train_steps: Annotated[int, opt("max_train_steps", "Of the network.")] = 300,
    learning_rate: Annotated[float, opt("learning_rate", "Of the network.")] = 1e-3,
    width: Annotated[int, opt("width", "Channels inside the network.")] = 64,
    subfolder: Subfolder = None,
    variant: Variant = None,
    revision: Revision = None,
    model_config_name_or_path: ModelConfig = None,
) -> None:
    """Fit a latent op in closed form, in seconds, the VAE untouched; `evaluate --latent_op` measures it."""
    from equivae.files.writing import claim_folder

    source = images_from(train_data_dir, dataset_name, "train_data_dir")
    names = transforms_of(transforms)
    if len(names) != 1:
        raise InputError(f"one transform is fitted at a time, got {transforms!r}; pass one name.")
    if kernel_size != "auto" and not kernel_size.isdigit():
        raise InputError(f"kernel_size must be an odd number or 'auto', got {kernel_size!r}.")
    size: Any = "auto" if kernel_size == "auto" else int(kernel_size)
    options: dict[str, Any] = {
        "method": method,
        "padding": padding,
        "ridge": ridge,
        "involution": involution,
        "validation_split": validation_split,
        "eval_batch_size": eval_batch_size,
        "mixed_precision": mixed_precision,
        "seed": seed,
    }
    FitOptions(size, **options)
    claim_folder(output_dir)
    fitted = equivae.fit_latent_op(
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
        **options,
    )
    fitted.save(output_dir)
    if fitted.report is not None:
        console.print(Markdown(fitted.report.to_markdown()))
    console.print(f"Written to [bold]{escape(str(output_dir))}[/].")
