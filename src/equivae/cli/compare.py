"""`equivae compare`: measure several VAEs."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

import equivae
from equivae.cli.inputs import given, images_from, transforms_of
from equivae.cli.options import (
    Background,
    DataDir,
    DatasetName,
    DrawSeed,
    EvalBatchSize,
    Features,
    ImageColumn,
    Lpips,
    MaxSamples,
    Panels,
    Reencode,
    ReportDir,
    Resolution,
    Split,
    SweepSamples,
    Transforms,
    words_of,
)
from equivae.cli.showing import conclude, console, plain
from equivae.processes import process_state

__all__ = ["compare"]


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Two or more: hub names, folders, .safetensors files or 'embedded'.",
            callback=words_of("models"),
        ),
    ],
    data_dir: DataDir = None,
    dataset_name: DatasetName = None,
    transforms: Transforms = "rot180",
    output_dir: ReportDir = None,
    resolution: Resolution = 256,
    eval_batch_size: EvalBatchSize = 4,
    max_samples: MaxSamples = None,
    sweep_samples: SweepSamples = None,
    reencode: Reencode = False,
    features: Features = None,
    lpips: Lpips = None,
    seed: DrawSeed = 0,
    panels: Panels = 3,
    image_column: ImageColumn = None,
    split: Split = None,
    background: Background = None,
) -> None:
    """Measure several VAEs on the same images, side by side in one table and one figure."""
    from equivae.files.writing import check_claim

    source = images_from(data_dir, dataset_name, "data_dir")
    wanted = transforms_of(transforms)
    if output_dir is not None:
        check_claim(output_dir)
    found = equivae.compare(
        models,
        source,
        wanted,
        resolution=resolution,
        eval_batch_size=eval_batch_size,
        max_samples=max_samples,
        sweep_samples=sweep_samples,
        reencode=reencode,
        features=features,  # type: ignore[arg-type]
        lpips=lpips,  # type: ignore[arg-type]
        seed=seed,
        panels=panels,
        **given(image_column=image_column, split=split, background=background),
    )
    if not process_state().is_main_process:
        return
    table = Table("metric", *map(plain, found.metrics))
    for row in found.rows():
        table.add_row(*map(plain, row))
    console.print(table)
    if output_dir is not None:
        found.save(output_dir)
    conclude(found.verdict, found.skipped, output_dir)
