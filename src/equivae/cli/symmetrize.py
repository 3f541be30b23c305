"""`equivae symmetrize`: an exactly equivariant VAE around another, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import equivae
from equivae.cli.groups import ImageReading, Magnitude, ModelSource, Seed, TrainImages, with_groups
from equivae.cli.inputs import number_or
from equivae.cli.options import (
    EvalBatchSize,
    FewSamples,
    Model,
    OutputDir,
    Resolution,
    opt,
)
from equivae.cli.showing import console, plain
from equivae.files.writing import check_claim
from equivae.operators import FitOptions
from equivae.options import at_least
from equivae.symmetry.domain import lattice_group

__all__ = ["symmetrize"]


@with_groups
def symmetrize(
    *,
    pretrained_model_name_or_path: Model,
    output_dir: OutputDir = Path("equivae-symmetrized"),
    group: Annotated[str, opt("group", "c2, hflip, vflip, d2, c4 or d4.")] = "c2",
    method: Annotated[str, opt("method", "fundamental-domain, or average.")] = "fundamental-domain",
    images: TrainImages,
    kernel_size: Annotated[str, opt("kernel_size", "Side of the context's latent ops.")] = "5",
    magnitude: Magnitude = 0,
    margin: Annotated[
        str, opt("margin", "Cells around the domain; auto measures it, all takes the whole grid.")
    ] = "auto",
    passes: Annotated[
        int, opt("passes", "How often the context is translated.", range=at_least(0, 100))
    ] = 2,
    seam: Annotated[
        str, opt("seam", "Pixels over which the parts fade; auto measures it, all takes the crops.")
    ] = "auto",
    resolution: Resolution = 256,
    max_samples: FewSamples = None,
    eval_batch_size: EvalBatchSize = 4,
    seed: Seed = 0,
    model: ModelSource,
    reading: ImageReading,
) -> None:
    """Make a VAE exactly equivariant under flips and quarter turns of the latent, without training."""
    lattice_group(group)
    size: Any = number_or("kernel_size", kernel_size, "auto", "an odd number")
    FitOptions(size, magnitude=magnitude)
    known = "a whole number, 'all'"
    cells = None if margin == "all" else number_or("margin", margin, "auto", known)
    width = None if seam == "all" else number_or("seam", seam, "auto", known)
    source = images.one_or_none()
    check_claim(output_dir)
    made = equivae.symmetrize(
        model.load(pretrained_model_name_or_path),
        group,
        method,  # type: ignore[arg-type]
        source,
        kernel_size=size,
        magnitude=magnitude,
        margin=cells,
        passes=passes,
        seam=width,
        resolution=resolution,
        max_samples=max_samples,
        eval_batch_size=eval_batch_size,
        seed=seed,
        **reading.given(),
    )
    made.save_pretrained(output_dir)
    if made.report is not None:
        found = made.report
        console.print(
            f"reconstruction {found.plain_psnr:.2f} -> {found.reconstruction_psnr:.2f} dB, margin "
            f"{found.margin}, {found.cost:.2f} times the cells."
        )
    console.print(f"Written to [bold]{plain(output_dir)}[/].")
