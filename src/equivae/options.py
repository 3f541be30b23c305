"""Options as dataclass fields: each carries its help and the values that it may have.

A group of options is a frozen dataclass under `Options`, whose fields are made by `option`. When it is
made, every value is checked against the field's type and range, and then every class in its ancestry runs
its own `check`, the rules between its fields. All that is refused is refused in one sentence.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from equivae.errors import InputError, did_you_mean
from equivae.secrets import register_secret

__all__ = [
    "BATCH",
    "MOST",
    "NOT_NEGATIVE",
    "SEED",
    "SIDE",
    "Options",
    "Range",
    "above",
    "at_least",
    "check_path",
    "check_value",
    "option",
    "quoted",
    "within",
]

MOST = 10**9
"""The largest count that an option takes; whoever asks for more has mistyped."""

_LARGEST = 3.4e38  # of float32, in which everything is computed
_LONGEST_TEXT = 4095
_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes, what file systems take


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; an open end does not belong to them."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above_low = value > self.low if self.open_low else value >= self.low
        return above_low and (value < self.high if self.open_high else value <= self.high)

    def wanted(self, value: float) -> str:
        """What is expected instead of a value outside, after "must"."""
        if self.high <= 1:
            left, right = "(["[not self.open_low], ")]"[not self.open_high]
            return f"lie in {left}{self.low:g}, {self.high:g}{right}"
        if value > self.low or (value == self.low and not self.open_low):
            return f"be at most {self.high:.0f}"
        if self.open_low:
            return f"be above {self.low:g}"
        return "not be negative" if self.low == 0 else f"be at least {self.low:g}"


def at_least(low: float, high: float = MOST) -> Range:
    """The numbers from `low` on, up to where no one can mean it."""
    return Range(low, high)


def above(low: float) -> Range:
    """The numbers greater than `low`."""
    return Range(low, open_low=True)


def within(low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> Range:
    """The numbers between two ends."""
    return Range(low, high, open_low, open_high)


SIDE = at_least(1, 2**16)
"""Of an image, in pixels."""

BATCH = at_least(1, 2**16)
"""Images at a time."""

NOT_NEGATIVE = at_least(0, math.inf)
"""Weights and norms: 0 leaves out what they weigh."""

SEED = Range(0, 2**32 - 1)
"""What seeds every generator: those of Python, numpy and torch."""


def option(
    default: Any,
    help: str,
    *,
    range: Range | None = None,
    check: Callable[[str, Any], None] | None = None,
    secret: bool = False,
    free: bool = False,
    repeated: bool = False,
) -> Any:
    """A field of a group of options.

    Args:
        default: its value unless given.
        help: one sentence for the command line and the docs.
        range: the numbers that it may be.
        check: called with the option's name and value, raises `InputError`.
        secret: it is written, logged and shown nowhere.
        free: it may change when a run is resumed.
        repeated: on the command line it is given as often as there are values, each a text.
    """
    metadata = {"help": help, "range": range, "check": check, "secret": secret, "free": free}
    metadata["repeated"] = repeated
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True)
class Options:
    """A group of options, checked when it is made; see the module."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for one in fields(self):
            if one.metadata.get("secret") and isinstance(getattr(self, one.name), str):
                register_secret(getattr(self, one.name))
        for one in fields(self):
            rules = {key: one.metadata.get(key) for key in ("range", "check")}
            value, secret = getattr(self, one.name), bool(one.metadata.get("secret"))
            check_value(one.name, value, hints[one.name], **rules, secret=secret)
        for group in reversed(type(self).__mro__):
            rule: Callable[[Options], None] | None = vars(group).get("check")
            if rule is not None:
                rule(self)


def check_value(
    name: str,
    value: Any,
    kind: Any,
    *,
    range: Range | None = None,
    check: Callable[[str, Any], None] | None = None,
    secret: bool = False,
) -> None:
    """`InputError`, in one sentence, unless an option's value has its type and lies in its range.

    ```python
    import pytest

    from equivae import InputError
    from equivae.options import at_least, check_value

    check_value("max_samples", 4, int, range=at_least(1))
    with pytest.raises(InputError, match="max_samples must be at least 1, got 0"):
        check_value("max_samples", 0, int, range=at_least(1))
    ```
    """
    kinds = _alternatives(kind)
    if value is None and type(None) in kinds:
        return
    kinds = [one for one in kinds if one is not type(None)]
    got = "what was given" if secret else quoted(value)
    if not any(_is(value, one) for one in kinds):
        raise InputError(_wrong_kind(name, value, kinds, got))
    if isinstance(value, Real) and not isinstance(value, bool):
        _check_number(name, value, range or Range(-math.inf), got)
    elif isinstance(value, str) and str in kinds:
        _check_text(name, value, got)
    if check is not None:
        check(name, value)


def check_path(name: str, path: Any) -> None:
    """`InputError` for what no file system takes as a path: nothing, too long a name, a NUL."""
    text = str(path)
    parts = [part.encode("utf-8", "surrogatepass") for part in text.split("/")]
    if not text.strip() or "\0" in text:
        raise InputError(f"{name} must be a path, got {quoted(text)}.")
    if max(map(len, parts)) > _LONGEST_NAME or sum(map(len, parts)) > _LONGEST_PATH:
        raise InputError(
            f"{name} is too long a path: a name in it may have {_LONGEST_NAME} bytes, got {quoted(text)}."
        )


def quoted(value: Any, most: int = 60) -> str:
    """A value as Python writes it, in one line of bounded length."""
    shown = repr(value)
    return shown if len(shown) <= most else f"{shown[: most - 12]}...{shown[-9:]}"


def _alternatives(kind: Any) -> list[Any]:
    if get_origin(kind) in (Union, types.UnionType):
        return [one for part in get_args(kind) for one in _alternatives(part)]
    return [kind]


def _is(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return any(value == one and type(value) is type(one) for one in get_args(kind))
    if kind in (int, float):
        wanted = Integral if kind is int else Real
        return isinstance(value, wanted) and not isinstance(value, bool)
    plain = get_origin(kind) or kind
    return isinstance(value, plain) if isinstance(plain, type) else True


_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


def _wrong_kind(name: str, value: Any, kinds: list[Any], got: str) -> str:
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    others = [_KINDS.get(kind, "") or f"a {getattr(kind, '__name__', kind)}" for kind in kinds]
    others = [
        text for text, kind in zip(others, kinds, strict=True) if get_origin(kind) is not Literal
    ]
    if words and isinstance(value, str) and not others:
        return f"{name}={got} is unknown.{did_you_mean(value[:60], words)}"
    wanted = " or ".join([*others, *map(repr, words)])
    kind = type(value).__name__
    return f"{name} must be {wanted}, got {got}" + (f" ({kind})." if others else ".")


def _check_number(name: str, value: Any, range: Range, got: str) -> None:
    try:
        number = float(value)
    except OverflowError:  # of a whole number
        number = math.inf if value > 0 else -math.inf
    if number not in range:
        raise InputError(f"{name} must {range.wanted(number)}, got {got}.")
    if not abs(number) <= _LARGEST:
        raise InputError(f"{name} must be a finite number, got {got}.")


def _check_text(name: str, value: str, got: str) -> None:
    if not value.strip() or not value.isprintable():
        raise InputError(f"{name} must be a text of printable characters, got {got}.")
    if len(value) > _LONGEST_TEXT:
        raise InputError(f"{name} must have at most {_LONGEST_TEXT} characters, got {len(value)}.")
