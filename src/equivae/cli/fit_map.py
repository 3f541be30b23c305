"""`equivae fit-map` and `equivae fit-preview`: linear maps of latents, to another VAE's and to a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markdown import Markdown

import equivae
from equivae.cli.inputs import given, images_from, load_model
from equivae.cli.options import (
    Background,
    DatasetName,
    EvalBatchSize,
    FewSamples,
    ImageColumn,
    Model,
    ModelConfig,
    OutputDir,
    Resolution,
    Revision,
    Split,
    Subfolder,
    TrainDataDir,
    Variant,
    flag_of,
    opt,
    opt_of,
)
from equivae.cli.showing import console, plain
from equivae.errors import InputError
from equivae.files.writing import check_claim, check_name, check_output
from equivae.operators import FitOptions
from equivae.operators.modules import check_kernel_size
from equivae.options import quoted

__all__ = ["fit_map", "fit_preview"]


def _check_size(name: str, value: Any) -> None:
    check_kernel_size(value)


Target = Annotated[
    str, opt("target_model_name_or_path", "The VAE whose latents are wanted, as the first.")
]


def fit_map(
    pretrained_model_name_or_path: Model,
    target_model_name_or_path: Target,
    output_dir: OutputDir = Path("equivae-latent-map"),
    train_data_dir: TrainDataDir = None,
    dataset_name: DatasetName = None,
    kernel_size: Annotated[
        int, opt("kernel_size", "Odd number of cells of the coarser grid.", check=_check_size)
    ] = 5,
    ridge: Annotated[Optional[float], opt_of(FitOptions, "ridge")] = None,
    border: Annotated[bool, flag_of(FitOptions, "border")] = True,
    magnitude: Annotated[bool, typer.Option("--magnitude", help="|z| beside the latent.")] = False,
    name: Annotated[Optional[str], opt("name", "Name of the map.", check=check_name)] = None,
    resolution: Resolution = 256,
    max_samples: FewSamples = None,
    validation_split: Annotated[float, opt_of(FitOptions, "validation_split")] = 0.1,
    eval_batch_size: EvalBatchSize = 4,
    seed: Annotated[int, opt_of(FitOptions, "seed")] = 0,
    subfolder: Subfolder = None,
    variant: Variant = None,
    revision: Revision = None,
    model_config_name_or_path: ModelConfig = None,
    target_subfolder: Annotated[
        Optional[str], opt("target_subfolder", "Subfolder of the target model, where it has one.")
    ] = None,
    target_model_config_name_or_path: Annotated[
        Optional[str],
        opt(
            "target_model_config_name_or_path",
            "Configuration of the target, if it is a single file.",
        ),
    ] = None,
    image_column: ImageColumn = None,
    split: Split = None,
    background: Background = None,
) -> None:
    """Fit a map from one VAE's latents to another's in closed form, both untouched."""
    source = images_from(train_data_dir, dataset_name, "train_data_dir")
    check_claim(output_dir)
    fitted = equivae.fit_latent_map(
        load_model(
            pretrained_model_name_or_path, subfolder, variant, revision, model_config_name_or_path
        ),
        load_model(
            target_model_name_or_path,
            target_subfolder,
            None,
            None,
            target_model_config_name_or_path,
        ),
        source,
        kernel_size,
        ridge=ridge,
        border=border,
        magnitude=magnitude,
        name=name,
        resolution=resolution,
        max_samples=max_samples,
        validation_split=validation_split,
        eval_batch_size=eval_batch_size,
        seed=seed,
        **given(image_column=image_column, split=split, background=background),
    )
    fitted.save(output_dir)
    if fitted.report is not None:
        console.print(Markdown(fitted.report.to_markdown()))
    console.print(f"Written to [bold]{plain(output_dir)}[/].")


def fit_preview(
    pretrained_model_name_or_path: Model,
    output_dir: Annotated[
        Optional[Path], opt("output_dir", "Write it here too.", check=check_output)
    ] = None,
    train_data_dir: TrainDataDir = None,
    dataset_name: DatasetName = None,
    format: Annotated[str, opt("format", "What to print: comfyui or diffusers.")] = "comfyui",
    ridge: Annotated[Optional[float], opt_of(FitOptions, "ridge")] = None,
    resolution: Resolution = 256,
    max_samples: FewSamples = None,
    validation_split: Annotated[float, opt_of(FitOptions, "validation_split")] = 0.1,
    eval_batch_size: EvalBatchSize = 4,
    seed: Annotated[int, opt_of(FitOptions, "seed")] = 0,
    subfolder: Subfolder = None,
    variant: Variant = None,
    revision: Revision = None,
    model_config_name_or_path: ModelConfig = None,
    image_column: ImageColumn = None,
    split: Split = None,
    background: Background = None,
) -> None:
    """Fit the linear preview of a VAE's latents and print it for ComfyUI or diffusers."""
    if format not in ("comfyui", "diffusers"):
        raise InputError(f"format must be comfyui or diffusers, got {quoted(format)}.")
    source = images_from(train_data_dir, dataset_name, "train_data_dir")
    if output_dir is not None:
        check_claim(output_dir)
    fitted = equivae.fit_preview(
        load_model(
            pretrained_model_name_or_path, subfolder, variant, revision, model_config_name_or_path
        ),
        source,
        ridge=ridge,
        resolution=resolution,
        max_samples=max_samples,
        validation_split=validation_split,
        eval_batch_size=eval_batch_size,
        seed=seed,
        **given(image_column=image_column, split=split, background=background),
    )
    if output_dir is not None:
        fitted.save(output_dir)
    # Bare, so that it can be piped into a file.
    typer.echo(fitted.to_comfyui() if format == "comfyui" else fitted.to_diffusers(), nl=False)
    if fitted.report is not None:
        typer.echo(f"preview: {fitted.report.psnr:.2f} dB on held-out images.", err=True)
