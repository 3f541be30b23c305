"""How transforms are written: `scale(factor=0.5)`, in names, lists and on the command line."""

from __future__ import annotations

import ast
import re
from typing import Any

from torch import Tensor

from equivae.errors import InputError

__all__ = ["NAME", "NAME_RULE", "parse_spelling", "spell", "split_transforms"]

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""What a transform may be registered as: it is written in lists, and in the names of files."""

NAME_RULE = (
    "names are at most 64 lower-case letters, digits and underscores and start with a letter"
)


def spell(name: str, **parameters: Any) -> str:
    """`spell("scale", factor=0.5)` is `"scale(factor=0.5)"`, which `parse_spelling` reads."""
    written = ",".join(f"{key}={_written(value)}" for key, value in parameters.items())
    return f"{name}({written})" if written else name


def _written(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"<{value.shape[0]} drawn>"
    if isinstance(value, (tuple, list)):
        inner = ",".join(_written(item) for item in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return f"{value:.12g}" if isinstance(value, float) else repr(value)


def parse_spelling(text: str) -> tuple[str, dict[str, Any]]:
    """Name and parameters of `"name"` or `"name(key=value, ...)"`; values are Python literals.

    Nothing is evaluated. Raises `InputError` for anything else.

    ```python
    from equivae.transforms.spelling import parse_spelling

    assert parse_spelling("scale(factor=0.5)") == ("scale", {"factor": 0.5})
    ```
    """
    name, bracket, _ = text.partition("(")
    name = name.strip()
    if not bracket:
        return name, {}
    wrong = InputError(
        f"transform {text!r} cannot be read; write a name with its parameters by keyword, as in "
        "'scale(factor=0.5)'."
    )
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
            raise wrong
        if any(keyword.arg is None for keyword in call.keywords):
            raise wrong
        return name, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, MemoryError, RecursionError, TypeError) as error:
        if error is wrong:
            raise
        raise wrong from error


def split_transforms(text: str) -> list[str]:
    """The members of a comma-separated list; commas inside brackets do not separate.

    Raises `InputError` when the brackets do not match.

    ```python
    from equivae.transforms import split_transforms

    names = split_transforms("rot180, scale(factor=(0.5, 0.25))")
    assert names == ["rot180", "scale(factor=(0.5, 0.25))"]
    ```
    """
    members, start, depth = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0:
            break
        if letter == "," and depth == 0:
            members.append(text[start:place])
            start = place + 1
    if depth:
        raise InputError(f"the brackets of {text!r} do not match.")
    members.append(text[start:])
    return [member.strip() for member in members if member.strip()]
