"""`equivae playground`: one page on which a transform is dragged."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Optional

import equivae
from equivae.cli.groups import ImageReading, KernelSize, ModelSource, TrainImages, with_groups
from equivae.cli.inputs import number_or, numbers_of
from equivae.cli.options import (
    Model,
    OutputDir,
    opt,
    opt_of,
)
from equivae.cli.showing import console, plain
from equivae.files.writing import check_claim
from equivae.operators import FitOptions
from equivae.reporting.playground import PlaygroundOptions
from equivae.symmetry.domain import lattice_group

__all__ = ["playground"]


def _settings_of(name: str) -> Any:
    """`--name`, numbers with commas between them; the option's own rules are checked with the others."""
    (one,) = [one for one in dataclasses.fields(PlaygroundOptions) if one.name == name]
    help = f"{one.metadata['help'].rstrip('.')}; none leaves the slider out."
    numbers = _default(name).split(",")
    return opt(name, help, shown=" ".join(numbers) if len(numbers) < 9 else "every 15")


def _default(name: str) -> str:
    return ",".join(f"{value:g}" for value in getattr(PlaygroundOptions, name))


@with_groups
def playground(
    *,
    pretrained_model_name_or_path: Model = "embedded",
    image: Annotated[
        Optional[Path], opt("image", "A picture; by default a photograph of the package.")
    ] = None,
    output_dir: OutputDir = Path("equivae-playground"),
    images: TrainImages,
    angles: Annotated[str, _settings_of("angles")] = _default("angles"),
    scales: Annotated[str, _settings_of("scales")] = _default("scales"),
    exposures: Annotated[str, _settings_of("exposures")] = _default("exposures"),
    saturations: Annotated[str, _settings_of("saturations")] = _default("saturations"),
    group: Annotated[str, opt("group", "Of the symmetrized VAE, such as c4 or d4.")] = "c4",
    kernel_size: KernelSize = "5",
    resolution: Annotated[int, opt_of(PlaygroundOptions, "resolution")] = 256,
    max_samples: Annotated[int, opt_of(PlaygroundOptions, "max_samples")] = 64,
    eval_batch_size: Annotated[int, opt_of(PlaygroundOptions, "eval_batch_size")] = 4,
    seed: Annotated[int, opt_of(PlaygroundOptions, "seed")] = 0,
    model: ModelSource,
    reading: ImageReading,
) -> None:
    """Write one page on which an angle, a scale and colours are dragged on a picture's latent.

    It shows the plain latent op, a fitted one, re-encoding and a symmetrized VAE side by side, and needs no
    server. Latent ops are fitted on procedural images unless --train_data_dir or --dataset_name is given.
    """
    size: Any = number_or("kernel_size", kernel_size, "auto", "an odd number")
    FitOptions(size)
    lattice_group(group)
    options: dict[str, Any] = {
        name: numbers_of(name, text)
        for name, text in (
            ("angles", angles),
            ("scales", scales),
            ("exposures", exposures),
            ("saturations", saturations),
        )
    }
    options |= {
        "resolution": resolution,
        "max_samples": max_samples,
        "eval_batch_size": eval_batch_size,
        "seed": seed,
    }
    PlaygroundOptions(**options)
    source = images.one_or_none()
    check_claim(output_dir)
    made = equivae.playground(
        model.load(pretrained_model_name_or_path),
        image,
        source,
        group=group,
        kernel_size=size,
        **reading.given(),
        **options,
    )
    page = made.save(output_dir)
    console.print(f"Open [bold]{plain(page)}[/] in a browser and drag; it needs nothing beside it.")
