"""`equivae fit`: a latent op in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markdown import Markdown

import equivae
from equivae.cli.groups import (
    Border,
    ImageReading,
    KernelSize,
    Magnitude,
    MaxSeconds,
    Method,
    ModelSource,
    Objective,
    Padding,
    Precision,
    Ridge,
    Seed,
    TrainImages,
    ValidationSplit,
    with_groups,
)
from equivae.cli.inputs import number_or, transforms_of
from equivae.cli.options import (
    EvalBatchSize,
    FewSamples,
    Model,
    OutputDir,
    Resolution,
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


@with_groups
def fit(
    *,
    pretrained_model_name_or_path: Model,
    output_dir: OutputDir = Path("equivae-latent-op"),
    transforms: Annotated[
        str, opt("transforms", "The transform to fit, such as rot180.")
    ] = "rot180",
    images: TrainImages,
    kernel_size: KernelSize = "5",
    method: Method = "linear",
    padding: Padding = "zeros",
    ridge: Ridge = None,
    involution: Annotated[
        bool, typer.Option("--involution", help="Project a 1x1 operator to eigenvalues of +1, -1.")
    ] = False,
    name: Annotated[
        Optional[str], opt("name", "Name of the fitted transform.", check=check_name)
    ] = None,
    resolution: Resolution = 256,
    max_samples: FewSamples = None,
    validation_split: ValidationSplit = 0.1,
    eval_batch_size: EvalBatchSize = 4,
    mixed_precision: Precision = "no",
    seed: Seed = 0,
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
    max_seconds: MaxSeconds = 300.0,
    crop: Annotated[Optional[int], opt_of(NetworkOptions, "crop")] = None,
    objective: Objective = "latent",
    border: Border = True,
    magnitude: Magnitude = 0,
    phases: Annotated[bool, flag_of(FitOptions, "phases")] = True,
    inverse: Annotated[bool, flag_of(FitOptions, "inverse")] = True,
    model: ModelSource,
    reading: ImageReading,
) -> None:
    """Fit a latent op in closed form, in seconds, the VAE untouched; `evaluate --latent_op` measures it."""
    source = images.one()
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
        model.load(pretrained_model_name_or_path),
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
        **reading.given(),
        **options,
    )
    fitted.save(output_dir)
    reports = getattr(fitted, "reports", None) or {"": fitted.report}  # of a family, or of one op
    for report in reports.values():
        console.print(Markdown(report.to_markdown()))
    console.print(f"Written to [bold]{plain(output_dir)}[/].")
