"""`equivae evaluate`: measure a VAE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

import equivae
from equivae.cli.inputs import formats_of, images_from, load_model, transforms_of
from equivae.cli.options import (
    DataDir,
    DatasetName,
    Figures,
    Model,
    ModelConfig,
    ReportDir,
    Revision,
    Subfolder,
    Transforms,
    Variant,
    opt,
    with_evaluation,
)
from equivae.cli.showing import show
from equivae.data.names import display_name
from equivae.errors import InputError
from equivae.processes import process_state
from equivae.reporting.options import EvaluationOptions

__all__ = ["evaluate"]


@with_evaluation
def evaluate(
    pretrained_model_name_or_path: Model,
    data_dir: DataDir = None,
    dataset_name: DatasetName = None,
    transforms: Transforms = "rot180",
    latent_op: Annotated[
        Optional[Path], opt("latent_op", "A folder of `equivae fit`, measured beside the others.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a latent op that was fitted to another VAE.")
    ] = False,
    baseline: Annotated[Optional[str], opt("baseline", "Another VAE, shown as 'before'.")] = None,
    output_dir: ReportDir = None,
    figures: Figures = "png",
    subfolder: Subfolder = None,
    variant: Variant = None,
    revision: Revision = None,
    model_config_name_or_path: ModelConfig = None,
    **options: Any,
) -> None:
    """Measure reconstruction and equivariance of a VAE, on its own or against a baseline."""
    from equivae.files.writing import check_claim

    source = images_from(data_dir, dataset_name, "data_dir")
    wanted: list[Any] = [*transforms_of(transforms)]
    if strict and latent_op is None:
        raise InputError("strict does nothing without latent_op; pass both or neither.")
    EvaluationOptions(**options)
    formats = formats_of(figures)
    if output_dir is not None:
        check_claim(output_dir)
    vae = load_model(
        pretrained_model_name_or_path, subfolder, variant, revision, model_config_name_or_path
    )
    if latent_op is not None:
        wanted.append(equivae.load_latent_op(latent_op, vae=vae, strict=strict))
    report = equivae.evaluate(
        vae,
        source,
        wanted,
        baseline=baseline,
        **options,
    )
    report.settings["vae"] = display_name(pretrained_model_name_or_path)
    if not process_state().is_main_process:
        return
    if output_dir is not None:
        report.save(output_dir, figures=formats)
    show(report, output_dir)
