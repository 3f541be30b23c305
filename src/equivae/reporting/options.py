"""The options that `evaluate` and `compare` share, from Python and on the command line."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional, TypeVar

from equivae.data.preparing import parse_colour
from equivae.evaluation.options import MeasureOptions, NumberOptions
from equivae.evaluation.sweeps import default_sweep_samples
from equivae.options import BATCH, SIDE, at_least, option

__all__ = ["EvaluationOptions", "with_evaluation_options"]

Result = TypeVar("Result")


def _check_colour(name: str, value: Any) -> None:
    parse_colour(value)


@dataclass(frozen=True)
class EvaluationOptions(NumberOptions):
    """Which images are measured, how they are read, and what is shown; `evaluate` says what each means."""

    resolution: Optional[int] = option(None, "Resize and centre-crop to this side.", range=SIDE)
    eval_batch_size: int = option(4, "Images per call.", range=BATCH)
    max_samples: Optional[int] = option(None, "Images used at most.", range=at_least(1))
    image_column: Optional[str] = option(
        None, "The column of a data set that holds the images; found unless given."
    )
    split: str = option("train", "The split of a data set.")
    streaming: bool = option(
        False,
        "Read parquet shards, or a data set of the hub, only up to max_samples; .tar shards always are.",
    )
    background: Any = option(
        "white", "The colour behind transparent pixels, as Pillow names it.", check=_check_colour
    )
    sweep_samples: Optional[int] = option(
        None,
        "Images on which angles and scales are swept, 0 for none; by default one in six, at most four, and "
        "angles only with rotations, scales only with scale or zoom.",
        range=at_least(0),
    )
    panels: int = option(3, "Images that are pictured.", range=at_least(0))

    @property
    def side(self) -> int | None:
        """Of the images: the protocol has one of its own."""
        return 256 if self.resolution is None and self.protocol == "imagenet" else self.resolution

    def reading(self) -> dict[str, Any]:
        """What `load_images` is told of how images are read."""
        names = ("image_column", "split", "background", "streaming")
        resize = "imagenet" if self.protocol == "imagenet" else "bicubic"
        return {"resize": resize, **{name: getattr(self, name) for name in names}}

    def measuring(self, images: int) -> MeasureOptions:
        """What `measure` is told, for so many images."""
        shared = {one.name: getattr(self, one.name) for one in dataclasses.fields(NumberOptions)}
        swept = self.sweep_samples
        return MeasureOptions(
            batch_size=self.eval_batch_size,
            sweep_samples=default_sweep_samples(images) if swept is None else swept,
            sweep_all=swept is not None,
            **shared,
        )


def with_evaluation_options(function: Callable[..., Result]) -> Callable[..., Result]:
    """Give a function with `**options` the signature with every field of `EvaluationOptions`."""
    hints = typing.get_type_hints(EvaluationOptions)
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    added = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=one.default,
            annotation=hints[one.name],
        )
        for one in dataclasses.fields(EvaluationOptions)
    ]
    whole = signature.replace(parameters=[*own, *added])

    @functools.wraps(function)
    def called(*given: Any, **options: Any) -> Result:
        whole.bind(*given, **options)  # a name that is none is refused as Python does it
        return function(*given, **options)

    called.__signature__ = whole  # type: ignore[attr-defined]
    return called
