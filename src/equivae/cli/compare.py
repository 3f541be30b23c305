"""`equivae compare`: measure several VAEs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import equivae
from equivae.cli.inputs import formats_of, images_from, seeds_of, transforms_of
from equivae.cli.options import (
    DataDir,
    DatasetName,
    Figures,
    ReportDir,
    Transforms,
    with_evaluation,
    words_of,
)
from equivae.cli.showing import show
from equivae.processes import process_state
from equivae.reporting.options import EvaluationOptions

__all__ = ["compare"]


@with_evaluation
def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Two or more: hub names, folders, .safetensors files or 'embedded'; several seeds of one "
            "training as NAME=A,B,C.",
            callback=words_of("models"),
        ),
    ],
    data_dir: DataDir = None,
    dataset_name: DatasetName = None,
    transforms: Transforms = "rot180",
    output_dir: ReportDir = None,
    figures: Figures = "png",
    **options: Any,
) -> None:
    """Measure several VAEs on the same images, side by side in one table and one figure."""
    from equivae.files.writing import check_claim

    source = images_from(data_dir, dataset_name, "data_dir")
    wanted = transforms_of(transforms)
    EvaluationOptions(**options)
    formats = formats_of(figures)
    if output_dir is not None:
        check_claim(output_dir)
    found = equivae.compare(seeds_of(models), source, wanted, **options)
    if not process_state().is_main_process:
        return
    if output_dir is not None:
        found.save(output_dir, figures=formats)
    show(found, output_dir)
