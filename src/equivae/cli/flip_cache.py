"""`equivae flip-cache`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from equivae.cli.options import check_folder, opt
from equivae.errors import InputError
from equivae.files.writing import check_output
from equivae.options import above, at_least

__all__ = ["flip_cache"]


def flip_cache(
    cache_dir: Annotated[Path, opt("cache_dir", "A folder of latents that a trainer cached.")],
    latent_op: Annotated[
        str, opt("latent_op", "A folder of `equivae fit`, its hub name, or a plain transform.")
    ],
    transform: Annotated[
        Optional[str], opt("transform", "The transform that is wanted, such as hflip.")
    ] = None,
    format: Annotated[
        str, opt("format", "kohya, lightningdit, ai_toolkit, simpletuner, plain; or auto.")
    ] = "auto",
    output_dir: Annotated[
        Optional[Path],
        opt(
            "output_dir",
            "For simpletuner and plain, which get a second folder with the same names: where it goes.",
            check=check_output,
        ),
    ] = None,
    scaled: Annotated[
        Optional[bool],
        typer.Option(
            "--scaled/--unscaled",
            help="Whether the cache holds scaled latents. By default what its format says.",
        ),
    ] = None,
    scaling_factor: Annotated[
        Optional[float],
        opt(
            "scaling_factor", "Factor of scaled latents, where the format has none.", range=above(0)
        ),
    ] = None,
    shift_factor: Annotated[float, opt("shift_factor", "Shift of scaled latents.")] = 0.0,
    check: Annotated[
        int,
        opt(
            "check",
            "Encode N of the images again and print how far off the flipped latents are.",
            range=at_least(0),
        ),
    ] = 0,
    pretrained_model_name_or_path: Annotated[
        Optional[str], opt("pretrained_model_name_or_path", "The VAE of the cache, for --check.")
    ] = None,
    image_dir: Annotated[
        Optional[Path],
        opt(
            "image_dir",
            "For --check: where the images are; else beside the cache.",
            check=check_folder,
        ),
    ] = None,
    num_processes: Annotated[
        int, opt("num_processes", "Number of processes.", range=at_least(1, 1024))
    ] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier run with another op wrote.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry_run", help="Look at everything, write nothing.")
    ] = False,
) -> None:
    """Write the flipped latents of a trainer's cache with a fitted latent op: no VAE, no images."""
    from equivae.caches.run import transform as run
    from equivae.latent_scaling import LatentScaling

    if image_dir is not None and not check:
        raise InputError("--image_dir does nothing without --check; pass both or neither.")
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
