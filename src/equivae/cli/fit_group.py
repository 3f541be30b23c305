"""`equivae fit-group`: the latent ops of a whole group, from one pass over the images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import equivae
from equivae.cli.groups import (
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
from equivae.cli.inputs import number_or
from equivae.cli.options import (
    EvalBatchSize,
    FewSamples,
    Model,
    OutputDir,
    Resolution,
    opt,
    opt_of,
)
from equivae.cli.showing import console, plain
from equivae.files.writing import check_claim
from equivae.operators import FitOptions, save_operators
from equivae.operators.options import NetworkOptions

__all__ = ["fit_group"]


@with_groups
def fit_group(
    *,
    pretrained_model_name_or_path: Model,
    output_dir: OutputDir = Path("equivae-latent-ops"),
    group: Annotated[str, opt("group", "c2, d2, c4 or d4.")] = "d4",
    images: TrainImages,
    kernel_size: KernelSize = "5",
    basis: Annotated[
        str, opt("basis", "elements, or generators, from which the others are composed.")
    ] = "elements",
    method: Method = "linear",
    network: Annotated[
        Optional[str], opt("network", "small, medium or large: of a network or a conjugation.")
    ] = None,
    objective: Objective = "latent",
    max_train_steps: Annotated[int, opt_of(NetworkOptions, "max_train_steps")] = 300,
    learning_rate: Annotated[float, opt_of(NetworkOptions, "learning_rate")] = 1e-3,
    max_seconds: MaxSeconds = 300.0,
    padding: Padding = "zeros",
    ridge: Ridge = None,
    magnitude: Magnitude = 0,
    mixed_precision: Precision = "no",
    resolution: Resolution = 256,
    max_samples: FewSamples = None,
    validation_split: ValidationSplit = 0.1,
    eval_batch_size: EvalBatchSize = 4,
    seed: Seed = 0,
    model: ModelSource,
    reading: ImageReading,
) -> None:
    """Fit the latent ops of a group, the VAE untouched; with `--method conjugation` its law holds exactly."""
    source = images.one()
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
        model.load(pretrained_model_name_or_path),
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
        **reading.given(),
        **options,
    )
    save_operators(fitted, output_dir)
    names = ", ".join(sorted(path.name for path in output_dir.iterdir()))
    console.print(
        f"Products of elements differ from the element by {fitted.closure_error:.1e} of its norm at most."
    )
    console.print(f"Written to [bold]{plain(output_dir)}[/]: {plain(names)}.")
