"""The playground's sliders: what each may be set to, and the transform that stands for a setting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from equivae.errors import InputError
from equivae.options import quoted
from equivae.transforms import Transform, get_transform
from equivae.transforms.checks import is_number

__all__ = ["SLIDERS", "Slider", "check_settings"]


@dataclass(frozen=True)
class Slider:
    """One slider.

    Attributes:
        name: in the page's address, such as `"angle"`.
        option: the argument with its settings, such as `"angles"`.
        low: its least setting.
        high: its largest.
        rest: where it changes nothing.
        unit: what stands behind a setting.
        transform: a setting's transform.
    """

    name: str
    option: str
    low: float
    high: float
    rest: float
    unit: str
    transform: Callable[[float], Transform]

    def shown(self, value: float) -> str:
        """A setting as the page says it."""
        return f"{value:g}{self.unit}"


def _turned(angle: float) -> Transform:
    if angle % 90:
        return get_transform("rotate", angle=angle)
    return get_transform(f"rot{angle % 360:.0f}" if angle else "identity")


def _by_factor(name: str) -> Callable[[float], Transform]:
    return lambda factor: get_transform(name, factor=factor)


SLIDERS = (
    Slider("angle", "angles", -359, 359, 0, "°", _turned),
    Slider("scale", "scales", 0.25, 4, 1, "×", _by_factor("scale")),
    Slider("exposure", "exposures", 0.1, 4, 1, "×", _by_factor("exposure")),
    Slider("saturation", "saturations", 0.1, 4, 1, "×", _by_factor("saturation")),
)


def check_settings(name: str, values: Any) -> None:
    """`InputError` unless they are settings of the slider whose option this is, each once."""
    (slider,) = [one for one in SLIDERS if one.option == name]
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InputError(f"{name} must be numbers, such as (0.5, 2), got {quoted(values)}.")
    for value in values:
        inside = is_number(value) and math.isfinite(value) and slider.low <= value <= slider.high
        if not inside:
            raise InputError(
                f"{name} must be numbers from {slider.low:g} to {slider.high:g}, got {quoted(value)}."
            )
    if len(set(values)) < len(values):
        raise InputError(f"{name} names a number twice; name each once.")
