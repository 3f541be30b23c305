"""`equivae flip-cache`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from equivae.errors import InputError

__all__ = ["flip_cache"]


def _opt(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


def flip_cache(
    cache_dir: Annotated[Path, _opt("cache_dir", "A folder of latents that a trainer cached.")],
    latent_op: Annotated[
        str, _opt("latent_op", "A folder of `equivae fit`, its hub name, or a plain transform.")
    ],
    transform: Annotated[
        Optional[str], _opt("transform", "What the op shall be for, such as hflip.")
    ] = None,
    format: Annotated[
        str, _opt("format", "kohya, lightningdit, ai_toolkit, simpletuner, plain; or auto.")
    ] = "auto",
    output_dir: Annotated[
        Optional[Path], _opt("output_dir", "For simpletuner and plain: where the copies go.")
    ] = None,
    scaled: Annotated[
        Optional[bool],
        typer.Option(
            "--scaled/--unscaled", help="What the cache holds; else as its format has it."
        ),
    ] = None,
    scaling_factor: Annotated[
        Optional[float], _opt("scaling_factor", "Of scaled latents, where the format has none.")
    ] = None,
    shift_factor: Annotated[float, _opt("shift_factor", "Of scaled latents.")] = 0.0,
    check: Annotated[
        int, _opt("check", "Encode the images of so many files again and compare.")
    ] = 0,
    pretrained_model_name_or_path: Annotated[
        Optional[str], _opt("pretrained_model_name_or_path", "The VAE of the cache, for --check.")
    ] = None,
    image_dir: Annotated[
        Optional[Path], _opt("image_dir", "Where the images are; else beside the cache.")
    ] = None,
    num_processes: Annotated[int, _opt("num_processes", "That share the work.")] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier run with another op wrote.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry_run", help="Look at everything, write nothing.")
    ] = False,
) -> None:
    """Write the flipped latents of a trainer's cache with a fitted latent op: no VAE, no images."""
    from equivae.autoencoder.latent_scaling import LatentScaling
    from equivae.caches.run import transform as run

    how: Any = scaled
    if scaling_factor is not None:
        if scaled is False:
            raise InputError("--unscaled latents have no --scaling_factor; leave one of them out.")
        how = LatentScaling(scaling_factor, shift_factor)
    report = run(
        cache_dir,
        latent_op,
        transform=transform,
        format=format,
        output_dir=output_dir,
        scaled=how,
        overwrite=overwrite,
        dry_run=dry_run,
        check=check,
        vae=pretrained_model_name_or_path,
        image_dir=image_dir,
        num_processes=num_processes,
    )
    typer.echo(str(report))
