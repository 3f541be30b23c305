"""Options that several commands share, and those of a fine-tune."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from equivae.errors import InputError
from equivae.files.writing import check_output
from equivae.options import BATCH, SIDE, Options, Range, at_least, check_path, check_value
from equivae.reporting.options import EvaluationOptions
from equivae.training.config import FinetuneConfig
from equivae.training.options.images import ImageOptions

__all__ = [
    "Background",
    "DataDir",
    "DatasetName",
    "EvalBatchSize",
    "FewSamples",
    "Figures",
    "GivenModel",
    "GivenTransforms",
    "ImageColumn",
    "Model",
    "ModelConfig",
    "OutputDir",
    "ReportDir",
    "Resolution",
    "Revision",
    "Split",
    "Subfolder",
    "TrainDataDir",
    "Transforms",
    "Variant",
    "check_folder",
    "flag_of",
    "opt",
    "opt_of",
    "with_config",
    "with_evaluation",
    "words_of",
]


def opt(
    name: str,
    help: str,
    *,
    range: Range | None = None,
    check: Callable[[str, Any], None] | None = None,
    shown: str | bool = True,
) -> Any:
    """`--name`, whose value is checked when it is read, before any work: see `equivae.options`.

    `shown` is what the help says of the default where that is too long.
    """
    rules = _checked(name, range, check)
    return typer.Option(f"--{name}", help=help, callback=rules, show_default=shown)


def opt_of(options: type[Options], name: str) -> Any:
    """`--name` with the help and the rules of a field of a group of options."""
    (one,) = [one for one in dataclasses.fields(options) if one.name == name]
    rules = {key: one.metadata[key] for key in ("range", "check")}
    return opt(name, one.metadata["help"], **rules)


def flag_of(options: type[Options], name: str) -> Any:
    """`--name` and `--no_name` with the help of a field of a group of options."""
    (one,) = [one for one in dataclasses.fields(options) if one.name == name]
    return typer.Option(f"--{name}/--no_{name}", help=one.metadata["help"])


def check_folder(name: str, path: Path) -> None:
    """`InputError` unless it is a folder that is there."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise InputError(f"{name} {path} {what}; pass a folder that is there.")


def words_of(name: str) -> Any:
    """The callback of an argument that is a list of words."""
    return _checked(name, None, None)


def _checked(
    name: str, range: Range | None, check: Callable[[str, Any], None] | None
) -> Callable[[Any], Any]:
    def checked(value: Any) -> Any:
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, Path):
                check_path(name, one)
                if check is not None:
                    check(name, one)
            elif one is not None:
                check_value(name, one, type(one), range=range, check=check)
        return value

    return checked


_MODEL = opt(
    "pretrained_model_name_or_path",
    "A hub name, a diffusers folder (VAE or pipeline), a .safetensors file, or 'embedded'.",
)
_TRANSFORMS = "Comma-separated, such as rot180,hflip or d4."
Model = Annotated[str, _MODEL]
GivenModel = Annotated[Optional[str], _MODEL]
Transforms = Annotated[str, opt("transforms", _TRANSFORMS)]
GivenTransforms = Annotated[
    Optional[str], opt("transforms", f"{_TRANSFORMS} The recipe's unless given, else rot180.")
]
OutputDir = Annotated[Path, opt("output_dir", "A new or empty folder.", check=check_output)]
ReportDir = Annotated[
    Optional[Path],
    opt("output_dir", "Write the report (.html, .md, .json) and figures here.", check=check_output),
]
TrainDataDir = Annotated[
    Optional[Path],
    opt(
        "train_data_dir",
        "A folder of images, or .tar or .parquet shards, such as 'shards/*.tar'.",
    ),
]
DatasetName = Annotated[Optional[str], opt("dataset_name", "A dataset on the hub.")]
Resolution = Annotated[
    Optional[int], opt("resolution", "Resize and centre-crop to this side.", range=SIDE)
]
EvalBatchSize = Annotated[int, opt("eval_batch_size", "Images per call.", range=BATCH)]
Figures = Annotated[str, opt("figures", "Formats of the figures, comma-separated: png, pdf, svg.")]
DataDir = Annotated[Optional[Path], opt("data_dir", "A folder of images.")]
FewSamples = Annotated[Optional[int], opt("max_samples", "Images used at most.", range=at_least(2))]
ImageColumn = Annotated[Optional[str], opt_of(ImageOptions, "image_column")]
Split = Annotated[Optional[str], opt_of(ImageOptions, "split")]
Background = Annotated[Optional[str], opt_of(ImageOptions, "background")]
Subfolder = Annotated[Optional[str], opt("subfolder", "Subfolder of the VAE in the model.")]
Variant = Annotated[Optional[str], opt("variant", "Variant of the weights, such as fp16.")]
Revision = Annotated[Optional[str], opt("revision", "Revision of the model on the hub.")]
ModelConfig = Annotated[
    Optional[str],
    opt(
        "model_config_name_or_path",
        "Family of a single .safetensors file: sd, sdxl, sd3, flux, or a folder with config.json.",
    ),
]


def with_options(
    options: type[Options], *, hidden: Sequence[str] = (), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command every field of a group of options; it gets those that were set as `options`.

    Args:
        options: the group.
        hidden: fields that are none on the command line.
        **defaults: where they are others on the command line.
    """
    hints = typing.get_type_hints(options)
    added = []
    for option in dataclasses.fields(options):
        if option.name in hidden:
            continue
        kind: Any = str if hints[option.name] is Any else hints[option.name]
        if option.metadata["repeated"]:
            kind = list[str]
        flag = f"--{option.name}"
        if kind == bool or kind == Optional[bool]:  # noqa: E721
            flag = f"{flag}/--no_{option.name}"
        default = defaults.get(option.name, option.default)
        shown = False if default is None or default is False else str(default)
        info = typer.Option(flag, help=option.metadata["help"], show_default=shown)
        # None marks an option that was not given, so that a recipe's value stands.
        annotation: Any = Annotated[Optional[kind], info]  # type: ignore[valid-type]
        added.append(
            inspect.Parameter(
                option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
            )
        )

    def give(command: Callable[..., None]) -> Callable[..., None]:
        parameters = inspect.signature(command, eval_str=True).parameters.values()
        own = [p for p in parameters if p.kind is not p.VAR_KEYWORD]

        def wrapped(**given: Any) -> None:
            names = {p.name for p in own}
            asked = {k: v for k, v in given.items() if k not in names and v is not None}
            command(**{k: v for k, v in given.items() if k in names}, **{**defaults, **asked})

        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        wrapped.__signature__ = inspect.Signature([*keyword, *added])  # type: ignore[attr-defined]
        wrapped.__doc__, wrapped.__name__ = command.__doc__, command.__name__
        return wrapped

    return give


with_config = with_options(FinetuneConfig)
with_evaluation = with_options(EvaluationOptions, hidden=("progress",), resolution=256)
