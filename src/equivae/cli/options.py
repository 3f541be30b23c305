"""Options that several commands share, and those of a fine-tune."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from equivae.training.config import FinetuneConfig

__all__ = [
    "DataDir",
    "DatasetName",
    "EvalBatchSize",
    "Features",
    "Lpips",
    "MaxSamples",
    "Model",
    "ModelConfig",
    "OutputDir",
    "Resolution",
    "Revision",
    "Subfolder",
    "SweepSamples",
    "TrainDataDir",
    "Transforms",
    "Variant",
    "opt",
    "with_config",
]


def opt(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


Model = Annotated[
    str,
    opt(
        "pretrained_model_name_or_path",
        "A hub name, a diffusers folder (VAE or pipeline), a .safetensors file, or 'embedded'.",
    ),
]
Transforms = Annotated[str, opt("transforms", "Comma-separated, such as rot180,hflip or d4.")]
OutputDir = Annotated[Path, opt("output_dir", "A new or empty folder.")]
TrainDataDir = Annotated[Optional[Path], opt("train_data_dir", "A folder of images.")]
DatasetName = Annotated[Optional[str], opt("dataset_name", "A dataset on the hub.")]
Resolution = Annotated[Optional[int], opt("resolution", "Resize and centre-crop to this side.")]
EvalBatchSize = Annotated[int, opt("eval_batch_size", "Images per call.")]
MaxSamples = Annotated[Optional[int], opt("max_samples", "Images used at most.")]
DataDir = Annotated[Optional[Path], opt("data_dir", "A folder of images.")]
SweepSamples = Annotated[
    int, opt("sweep_samples", "Images on which angles and scales are swept; 0 for none.")
]
Features = Annotated[
    Optional[str], opt("features", "inception, for rFID and feature cosine; see equivae[metrics].")
]
Lpips = Annotated[
    Optional[str], opt("lpips", "alex, vgg or squeeze, for LPIPS; see equivae[metrics].")
]
Subfolder = Annotated[Optional[str], opt("subfolder", "Of the model, where it has one.")]
Variant = Annotated[Optional[str], opt("variant", "Of the weights, such as fp16.")]
Revision = Annotated[Optional[str], opt("revision", "Of the model on the hub.")]
ModelConfig = Annotated[
    Optional[str],
    opt(
        "model_config_name_or_path",
        "Of a single .safetensors file: sd, sdxl, sd3, flux, or a folder with config.json.",
    ),
]


def with_config(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option of `FinetuneConfig`; it gets those that were set as `options`."""
    hints = typing.get_type_hints(FinetuneConfig)
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    own = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    added = []
    for option in dataclasses.fields(FinetuneConfig):
        kind = str if hints[option.name] is Any else hints[option.name]
        flag = f"--{option.name}"
        if kind is bool:
            flag = f"{flag}/--no_{option.name}"
        default = option.default
        shown = "" if default is None else f" [dim]\\[default: {default}][/dim]"
        info = typer.Option(flag, help=f"{option.metadata['help']}{shown}", show_default=False)
        # None marks an option that was not given, so that a recipe's value stands.
        annotation: Any = Annotated[Optional[kind], info]  # type: ignore[valid-type]
        added.append(
            inspect.Parameter(
                option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
            )
        )

    def wrapped(**given: Any) -> None:
        names = {p.name for p in own}
        options = {k: v for k, v in given.items() if k not in names and v is not None}
        command(**{k: v for k, v in given.items() if k in names}, **options)

    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    wrapped.__signature__ = inspect.Signature([*keyword, *added])  # type: ignore[attr-defined]
    wrapped.__doc__, wrapped.__name__ = command.__doc__, command.__name__
    return wrapped
