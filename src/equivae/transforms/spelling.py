"""How transforms are written: `scale(factor=0.5)`, in names, lists and on the command line.

What a name may be, beside a word with its parameters: `a@b` for a composition, `a+SignFlips(channels=(0,))`
for a channel response, `inverse(a)`, and brackets around any of them.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Any, Union

from torch import Tensor

from equivae.errors import InputError

__all__ = [
    "NAME",
    "NAME_RULE",
    "Call",
    "Inverse",
    "Product",
    "Response",
    "Spelling",
    "parse_expression",
    "parse_spelling",
    "spell",
    "spell_product",
    "split_transforms",
]

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""What a transform may be registered as: it is written in lists, and in the names of files."""

NAME_RULE = (
    "names are at most 64 lower-case letters, digits and underscores and start with a letter"
)


@dataclass(frozen=True)
class Call:
    """A word with parameters: `scale(factor=0.5)`."""

    word: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Product:
    """A composition: `outer@inner`."""

    outer: Spelling
    inner: Spelling


@dataclass(frozen=True)
class Response:
    """A channel response after a plain latent op: `grid+response`."""

    grid: Spelling
    response: Call


@dataclass(frozen=True)
class Inverse:
    """What undoes another: `inverse(of)`."""

    of: Spelling


Spelling = Union[Call, Product, Response, Inverse]


def spell(name: str, **parameters: Any) -> str:
    """`spell("scale", factor=0.5)` is `"scale(factor=0.5)"`, which `parse_spelling` reads."""
    written = ",".join(f"{key}={_written(value)}" for key, value in parameters.items())
    return f"{name}({written})" if written else name


def spell_product(outer: str, inner: str) -> str:
    """`"outer@inner"`; brackets where a response, which binds less, would go to the wrong one."""
    return f"{_bracketed(outer)}@{_bracketed(inner)}"


def _bracketed(name: str) -> str:
    try:
        return f"({name})" if isinstance(parse_expression(name), Response) else name
    except InputError:
        return name


def _written(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"<{value.shape[0] if value.ndim else 1} drawn>"
    if isinstance(value, (tuple, list)):
        inner = ",".join(_written(item) for item in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if hasattr(value, "item"):  # of numpy
        value = value.item()
    if not isinstance(value, float):
        return repr(value)
    short = f"{value:.12g}"
    return short if float(short) == value else repr(value)


def parse_spelling(
    text: str, *, kind: str = "transform", how: str = ""
) -> tuple[str, dict[str, Any]]:
    """Name and parameters of `"name"` or `"name(key=value, ...)"`; values are Python literals.

    Nothing is evaluated. Raises `InputError` for anything else, which says what kind of name was meant, and
    how to write one.

    ```python
    from equivae.transforms.spelling import parse_spelling

    assert parse_spelling("scale(factor=0.5)") == ("scale", {"factor": 0.5})
    ```
    """
    name, bracket, _ = text.partition("(")
    if not bracket:
        return name.strip(), {}
    try:
        spelled = parse_expression(text)
    except InputError as error:
        raise _wrong(text, kind, how) from error
    if not isinstance(spelled, Call):
        raise _wrong(text, kind, how)
    return spelled.word, spelled.parameters


def parse_expression(text: str) -> Spelling:
    """What any name says, compositions and responses too; values are Python literals.

    Nothing is evaluated. Raises `InputError` for what is not a name.

    ```python
    from equivae.transforms.spelling import Call, Product, parse_expression

    assert parse_expression("rot90@hflip") == Product(Call("rot90"), Call("hflip"))
    ```
    """
    try:
        return _read(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, MemoryError, RecursionError, TypeError) as error:
        raise _wrong(text) from error


def _read(node: ast.expr) -> Spelling:
    """The spelling of a syntax tree; `ValueError` for a tree that is none."""
    if isinstance(node, ast.Name):
        return Call(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        return Product(_read(node.left), _read(node.right))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        response = _read(node.right)
        if not isinstance(response, Call):
            raise ValueError("a response is a word with parameters")
        return Response(_read(node.left), response)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError("no name")
    if node.func.id == "inverse" and len(node.args) == 1 and not node.keywords:
        return Inverse(_read(node.args[0]))
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("parameters by keyword only")
    return Call(node.func.id, {str(k.arg): ast.literal_eval(k.value) for k in node.keywords})


def _wrong(text: str, kind: str = "transform", how: str = "") -> InputError:
    if " drawn>" in text:
        return InputError(
            f"transform {text!r} cannot be read back: its parameters were drawn, and a name does not hold "
            "them; pass the transform itself."
        )
    how = how or "write a name with its parameters by keyword, as in 'scale(factor=0.5)'"
    return InputError(f"{kind} {text!r} cannot be read; {how}.")


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
