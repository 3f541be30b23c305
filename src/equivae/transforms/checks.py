"""Whether the parameters of a transform can be meant: checked for every dataclass field, by its default."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from torch import Tensor

from equivae.errors import InputError

__all__ = [
    "check_between",
    "check_choices",
    "check_fields",
    "check_flag",
    "check_range",
    "is_number",
    "is_whole",
]

_LARGEST = 2**31


def check_fields(transform: Any) -> None:
    """Raise `InputError` unless the fields of a dataclass are of the kind of their defaults.

    Numbers are finite and below 2^31; a tensor stands for one number per sample, a tuple for several.
    Fields whose default is neither a number nor a word are their owner's business.
    """
    for field in dataclasses.fields(transform):
        value, default = getattr(transform, field.name), field.default
        if isinstance(default, bool):
            check_flag(field.name, value)
        elif _is_numeric(default) and not _is_numeric(value):
            raise InputError(f"{field.name} must be made of finite numbers, got {value!r}.")


def _is_numeric(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_complex() and bool(value.isfinite().all())
    if isinstance(value, (tuple, list)):
        return len(value) > 0 and all(map(_is_numeric, value))
    if isinstance(value, (bool, str, bytes)):
        return False
    try:
        return math.isfinite(value) and abs(value) < _LARGEST
    except (TypeError, OverflowError):
        return False


def is_number(value: Any) -> bool:
    """Whether it is one finite number."""
    return not isinstance(value, (tuple, list, Tensor)) and _is_numeric(value)


def is_whole(value: Any) -> bool:
    """Whether it is one whole number."""
    return is_number(value) and value == int(value)


def check_range(what: str, value: Any, low: float = -math.inf) -> None:
    """Raise `InputError` unless it is a pair `(from, to)` of numbers, the lower first, above `low`."""
    pair = isinstance(value, (tuple, list)) and len(value) == 2 and _is_numeric(value)
    if not pair or isinstance(value[0], (tuple, list)) or not low < value[0] <= value[1]:
        above = f" of numbers above {low:g}" if low > -math.inf else ""
        raise InputError(f"{what} must be a range (low, high){above}, got {value!r}.")


def check_choices(what: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raise `InputError` unless it is a tuple of numbers in `[low, high]`."""
    if not isinstance(value, (tuple, list)) or not value:
        raise InputError(f"{what} must be a tuple of numbers, got {value!r}.")
    for member in value:
        check_between(what, member, low, high)


def check_between(what: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raise `InputError` unless it is one number in `[low, high]`."""
    if not is_number(value) or not low <= value <= high:
        limits = f"in [{low:g}, {high:g}]" if high < math.inf else f"of at least {low:g}"
        raise InputError(f"{what} must be a number {limits}, got {value!r}.")


def check_flag(what: str, value: Any) -> None:
    """Raise `InputError` unless it is `True` or `False`."""
    if not isinstance(value, bool):
        raise InputError(f"{what} must be True or False, got {value!r}.")
