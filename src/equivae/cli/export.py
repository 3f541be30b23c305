"""`equivae export`: a single file for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import equivae
from equivae.cli.inputs import load_model
from equivae.cli.options import Model, ModelConfig, Revision, Subfolder, Variant, opt
from equivae.cli.showing import console, plain
from equivae.files.export import check_export

__all__ = ["export"]


def export(
    pretrained_model_name_or_path: Model,
    output_file: Annotated[Path, opt("output_file", "A new .safetensors file.")],
    dtype: Annotated[
        Optional[str], opt("dtype", "fp16, bf16 or fp32; by default as the weights are loaded.")
    ] = None,
    subfolder: Subfolder = None,
    variant: Variant = None,
    revision: Revision = None,
    model_config_name_or_path: ModelConfig = None,
) -> None:
    """Write a VAE as the single LDM-style file that ComfyUI, A1111 and kohya's trainers read."""
    check_export(output_file, dtype)
    vae = load_model(
        pretrained_model_name_or_path, subfolder, variant, revision, model_config_name_or_path
    )
    path = equivae.export_single_file(vae, output_file, dtype=dtype)
    console.print(f"Written to [bold]{plain(path)}[/].")
