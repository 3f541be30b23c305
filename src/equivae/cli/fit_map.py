"""`equivae fit-map` and `equivae fit-preview`: linear maps of latents, to another VAE's and to a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markdown import Markdown

import equivae
from equivae.cli.groups import (
    Border,
    ImageReading,
    ModelSource,
    Ridge,
    Seed,
    TrainImages,
    ValidationSplit,
    with_groups,
)
from equivae.cli.options import (
    EvalBatchSize,
    FewSamples,
    Model,
    OutputDir,
    Resolution,
    opt,
)
from equivae.cli.showing import console, plain
from equivae.errors import InputError
from equivae.files.writing import check_claim, check_name, check_output
from equivae.operators.modules import check_kernel_size
from equivae.options import quoted

__all__ = ["fit_map", "fit_preview"]


def _check_size(name: str, value: Any) -> None:
    check_kernel_size(value)


Target = Annotated[
    str, opt("target_model_name_or_path", "The VAE whose latents are wanted, as the first.")
]


@with_groups
def fit_map(
    *,
    pretrained_model_name_or_path: Model,
    target_model_name_or_path: Target,
    output_dir: OutputDir = Path("equivae-latent-map"),
    images: TrainImages,
    kernel_size: Annotated[
        int, opt("kernel_size", "Odd number of cells of the coarser grid.", check=_check_size)
    ] = 5,
    ridge: Ridge = None,
    border: Border = True,
    magnitude: Annotated[bool, typer.Option("--magnitude", help="|z| beside the latent.")] = False,
    name: Annotated[Optional[str], opt("name", "Name of the map.", check=check_name)] = None,
    resolution: Resolution = 256,
    max_samples: FewSamples = None,
    validation_split: ValidationSplit = 0.1,
    eval_batch_size: EvalBatchSize = 4,
    seed: Seed = 0,
    model: ModelSource,
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
    reading: ImageReading,
) -> None:
    """Fit a map from one VAE's latents to another's in closed form, both untouched."""
    source = images.one()
    check_claim(output_dir)
    fitted = equivae.fit_latent_map(
        model.load(pretrained_model_name_or_path),
        ModelSource(
            target_subfolder, model_config_name_or_path=target_model_config_name_or_path
        ).load(target_model_name_or_path),
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
        **reading.given(),
    )
    fitted.save(output_dir)
    if fitted.report is not None:
        console.print(Markdown(fitted.report.to_markdown()))
    console.print(f"Written to [bold]{plain(output_dir)}[/].")


@with_groups
def fit_preview(
    *,
    pretrained_model_name_or_path: Model,
    output_dir: Annotated[
        Optional[Path], opt("output_dir", "Write it here too.", check=check_output)
    ] = None,
    images: TrainImages,
    format: Annotated[str, opt("format", "What to print: comfyui or diffusers.")] = "comfyui",
    ridge: Ridge = None,
    resolution: Resolution = 256,
    max_samples: FewSamples = None,
    validation_split: ValidationSplit = 0.1,
    eval_batch_size: EvalBatchSize = 4,
    seed: Seed = 0,
    model: ModelSource,
    reading: ImageReading,
) -> None:
    """Fit the linear preview of a VAE's latents and print it for ComfyUI or diffusers."""
    if format not in ("comfyui", "diffusers"):
        raise InputError(f"format must be comfyui or diffusers, got {quoted(format)}.")
    source = images.one()
    if output_dir is not None:
        check_claim(output_dir)
    fitted = equivae.fit_preview(
        model.load(pretrained_model_name_or_path),
        source,
        ridge=ridge,
        resolution=resolution,
        max_samples=max_samples,
        validation_split=validation_split,
        eval_batch_size=eval_batch_size,
        seed=seed,
        **reading.given(),
    )
    if output_dir is not None:
        fitted.save(output_dir)
    # Bare, so that it can be piped into a file.
    typer.echo(fitted.to_comfyui() if format == "comfyui" else fitted.to_diffusers(), nl=False)
    if fitted.report is not None:
        typer.echo(f"preview: {fitted.report.psnr:.2f} dB on held-out images.", err=True)
