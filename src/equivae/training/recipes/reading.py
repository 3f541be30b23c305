"""Reading a recipe: YAML without surprises, every fault with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from equivae.errors import InputError, did_you_mean
from equivae.options import quoted
from equivae.training.recipes.base import RUN_FIELDS, Recipe

__all__ = ["parse_recipe", "read_recipe"]

_TEXTS = ("name", "summary", "source", "differs")
_FIELDS = (*_TEXTS, "transforms", "options", "run", "incomplete")
_MAPPING = "tag:yaml.org,2002:map"
_LARGEST = 2**20  # bytes
_FLOAT = re.compile(
    r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
_BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)$")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML 1.2's words: `no` is a text, and `1e-6` a number."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":bool", ":float"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a YAML file; `InputError` with file and line for what is not a recipe.

    ```python
    from pathlib import Path

    from equivae.training import read_recipe

    Path("mine.yaml").write_text("name: mine\\noptions: {learning_rate: 1e-4}\\n")
    assert read_recipe("mine.yaml").options == {"learning_rate": 1e-4}
    ```
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"recipe {path} cannot be read: {error.strerror or error}; pass a name that `equivae recipes` "
            "lists, or a YAML file."
        ) from error
    if len(content) > _LARGEST:
        raise InputError(f"{path} has {len(content)} bytes, which is too large for a recipe.")
    try:
        return parse_recipe(content.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; pass a YAML file.") from error


def parse_recipe(text: str, origin: str) -> Recipe:
    """The recipe in a YAML text; `InputError` that names its origin and the line."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{origin}, line 1: a recipe is a mapping, with options: in it.")
        lines: dict[str, int] = {}
        found = dict(_entries(loader, node, origin, "", lines))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{origin}, line {line}: this is not YAML ({problem}).") from error
    finally:
        loader.dispose()
    return _checked(found, origin, lines)


def _entries(
    loader: Any, node: Any, origin: str, path: str, lines: dict[str, int]
) -> Iterator[tuple[str, Any]]:
    """The fields of a mapping, their lines noted; mappings below it likewise."""
    if node.tag != _MAPPING:
        raise InputError(
            f"{origin}, line {node.start_mark.line + 1}: a recipe holds plain values, not {quoted(node.tag)}."
        )
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        name = loader.construct_object(key, deep=True)
        if not isinstance(name, str):
            raise InputError(
                f"{origin}, line {line}: a field's name is a text, got {quoted(name)}."
            )
        if name in seen:
            raise InputError(
                f"{origin}, line {line}: {name!r} is there already, in line {seen[name]}; keep one of them."
            )
        seen[name] = lines[f"{path}{name}"] = line
        if isinstance(value, yaml.MappingNode):
            yield name, dict(_entries(loader, value, origin, f"{path}{name}.", lines))
        else:
            yield name, loader.construct_object(value, deep=True)


def _checked(found: dict[str, Any], origin: str, lines: dict[str, int]) -> Recipe:
    def wrong(name: str, what: str) -> InputError:
        return InputError(f"{origin}, line {lines.get(name, 1)}: {what}")

    for name in found:
        if name not in _FIELDS:
            raise wrong(name, f"unknown field {quoted(name)}.{did_you_mean(name[:60], _FIELDS)}")
    for name in _TEXTS:
        if not isinstance(found.get(name, ""), str):
            raise wrong(name, f"{name} must be a text, got {quoted(found[name])}.")
    for name in ("options", "run"):
        if not isinstance(found.get(name) or {}, dict):
            raise wrong(name, f"{name} must be a mapping, got {quoted(found[name])}.")
    for name, value in (found.get("run") or {}).items():
        if name not in RUN_FIELDS:
            near = did_you_mean(name[:60], RUN_FIELDS)
            raise wrong(f"run.{name}", f"unknown field {quoted(name)} of a run.{near}")
        if not isinstance(value, str):
            raise wrong(f"run.{name}", f"{name} must be a text, got {quoted(value)}.")
    transforms, missing = found.get("transforms"), found.get("incomplete") or []
    several = [transforms] if isinstance(transforms, str) else transforms or []
    for name, value in (("transforms", several), ("incomplete", missing)):
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise wrong(name, f"{name} must be a text or a list of texts, got {quoted(value)}.")
    return Recipe(
        name=found.get("name") or Path(origin).stem,
        summary=found.get("summary", ""),
        source=found.get("source", ""),
        options=found.get("options") or {},
        differs=" ".join(found.get("differs", "").split()),
        transforms=",".join(several) or None,
        run=found.get("run") or {},
        incomplete=tuple(missing),
        origin=origin,
        lines=lines,
    )
