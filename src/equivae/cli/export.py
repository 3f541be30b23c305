"""`equivae export`: a single file for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

import equivae
from equivae.autoencoder.padding import apply_padding_mode, check_padding_mode
from equivae.cli.groups import ModelSource, with_groups
from equivae.cli.options import Model, opt
from equivae.cli.showing import console, plain
from equivae.files.export import check_export
from equivae.files.layouts import is_published

__all__ = ["export"]


@with_groups
def export(
    *,
    pretrained_model_name_or_path: Model,
    output_file: Annotated[Path, opt("output_file", "A new .safetensors file.")],
    dtype: Annotated[
        Optional[str], opt("dtype", "fp16, bf16 or fp32; by default as the weights are loaded.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
    family: Annotated[
        Optional[str],
        opt(
            "family",
            "Family of an AutoencoderTiny: sd, sdxl, sd3 or flux, the models whose latents it has.",
        ),
    ] = None,
    padding_mode: Annotated[
        Optional[str],
        opt(
            "padding_mode",
            "How the VAE was trained to pad, such as reflect-convs, where its file does not say.",
            check=lambda name, mode: check_padding_mode(mode),
        ),
    ] = None,
    model: ModelSource,
) -> None:
    """Write a VAE as the single file that ComfyUI, A1111 and kohya's trainers read."""
    check_export(output_file, dtype, overwrite=overwrite, family=family)
    vae = model.load(pretrained_model_name_or_path)
    if padding_mode is not None:
        apply_padding_mode(vae, check_padding_mode(padding_mode))
    path = equivae.export_single_file(
        vae, output_file, dtype=dtype, overwrite=overwrite, family=family
    )
    console.print(f"Written to [bold]{plain(path)}[/].")
    if not is_published(vae):
        console.print(
            "It is of another shape than the published VAEs: load_vae reads it, ComfyUI, A1111 and kohya's "
            "trainers do not."
        )
