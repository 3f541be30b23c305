"""Options that several commands have, as groups: a command names the group, its help lists the options."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

from equivae.cli.inputs import given, images_from, load_model
from equivae.cli.options import (
    Background,
    DatasetName,
    ImageColumn,
    ModelConfig,
    Revision,
    Split,
    Subfolder,
    TrainDataDir,
    Variant,
    flag_of,
    opt,
    opt_of,
)
from equivae.operators import FitOptions
from equivae.operators.options import NetworkOptions

__all__ = [
    "Border",
    "ImageReading",
    "KernelSize",
    "Magnitude",
    "MaxSeconds",
    "Method",
    "ModelSource",
    "Objective",
    "Padding",
    "Precision",
    "Ridge",
    "Seed",
    "TrainImages",
    "ValidationSplit",
    "with_groups",
]

KernelSize = Annotated[str, opt("kernel_size", "Odd number of latent cells, or auto.")]
Method = Annotated[str, opt_of(FitOptions, "method")]
Objective = Annotated[str, opt_of(FitOptions, "objective")]
Padding = Annotated[str, opt_of(FitOptions, "padding")]
Ridge = Annotated[Optional[float], opt_of(FitOptions, "ridge")]
Border = Annotated[bool, flag_of(FitOptions, "border")]
Magnitude = Annotated[int, opt_of(FitOptions, "magnitude")]
Precision = Annotated[str, opt_of(FitOptions, "mixed_precision")]
ValidationSplit = Annotated[float, opt_of(FitOptions, "validation_split")]
Seed = Annotated[int, opt_of(FitOptions, "seed")]
MaxSeconds = Annotated[float, opt_of(NetworkOptions, "max_seconds")]


@dataclass(frozen=True)
class ModelSource:
    """Where in a model the VAE lies."""

    subfolder: Subfolder = None
    variant: Variant = None
    revision: Revision = None
    model_config_name_or_path: ModelConfig = None

    def load(self, name: str) -> Any:
        """The VAE, on the device of this process."""
        return load_model(name, *dataclasses.astuple(self))


@dataclass(frozen=True)
class TrainImages:
    """A folder of images, or a dataset on the hub."""

    train_data_dir: TrainDataDir = None
    dataset_name: DatasetName = None

    def one(self) -> Path | str:
        """The one of them that was given. `InputError` for none and for both."""
        return images_from(self.train_data_dir, self.dataset_name, "train_data_dir")

    def one_or_none(self) -> Path | str | None:
        """The same, for a command that needs no images."""
        if self.train_data_dir is None and self.dataset_name is None:
            return None
        return self.one()


@dataclass(frozen=True)
class ImageReading:
    """How the images of a dataset are read."""

    image_column: ImageColumn = None
    split: Split = None
    background: Background = None

    def given(self) -> dict[str, Any]:
        """Those that were given."""
        return given(**dataclasses.asdict(self))


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of every group among its parameters, in the group's place."""
    groups: dict[str, Any] = {}
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if not dataclasses.is_dataclass(parameter.annotation):
            shown.append(parameter)
            continue
        groups[parameter.name] = parameter.annotation
        hints = typing.get_type_hints(parameter.annotation, include_extras=True)
        for field in dataclasses.fields(parameter.annotation):
            shown.append(
                parameter.replace(
                    name=field.name, default=field.default, annotation=hints[field.name]
                )
            )

    def grouped(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(
                **{one.name: values.pop(one.name) for one in dataclasses.fields(group)}
            )
        command(**values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    signature = inspect.Signature(
        [one if one.kind is one.VAR_KEYWORD else one.replace(kind=keyword) for one in shown]
    )
    grouped.__signature__ = signature  # type: ignore[attr-defined]
    grouped.__doc__, grouped.__name__ = command.__doc__, command.__name__
    return grouped
