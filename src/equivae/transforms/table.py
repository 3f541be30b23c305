"""The table of all registered transforms, which `equivae transforms` prints."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from equivae.transforms.registry import factory_of, get_transform, list_transforms, origin_of
from equivae.transforms.spelling import spell

__all__ = ["TransformInfo", "transform_table"]

_ALWAYS_THERE = {"cell", "inverted"}


@dataclass(frozen=True)
class TransformInfo:
    """One registered transform.

    Attributes:
        name: as it is written in `--transforms`.
        group: `"lattice"`, `"resampled"`, `"photometric"`, `"random"`, `"plugin"`, `"custom"`, ...
        kind: `"exact"` if values only move, `"resampled"` if they are interpolated, `"photometric"` if they
            change in place.
        parameters: what it takes, with the defaults: `"factor=0.5, antialias=True"`.
        source: the package or module that it comes from.
    """

    name: str
    group: str
    kind: str
    parameters: str
    source: str


def transform_table() -> list[TransformInfo]:
    """All registered transforms, sorted by group and name.

    ```python
    from equivae.transforms import transform_table

    row = next(row for row in transform_table() if row.name == "scale")
    assert (row.kind, row.source) == ("resampled", "equivae")
    ```
    """
    rows = []
    for name in list_transforms():
        group, source = origin_of(name)
        try:
            exact = get_transform(name).exact
            kind = "exact" if exact else "photometric" if group == "photometric" else "resampled"
        except ValueError:  # a custom one whose parameters have no defaults
            kind = "unknown"
        rows.append(TransformInfo(name, group, kind, _parameters(name), source))
    return sorted(rows, key=lambda row: (_ORDER.index(row.group), row.name))


_ORDER = (
    "lattice",
    "resampled",
    "photometric",
    "representation",
    "mixing",
    "time",
    "audio",
    "random",
    "combinator",
    "plugin",
    "custom",
)


def _parameters(name: str) -> str:
    factory = factory_of(name)
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return ""
    shown = []
    # A subclass's own parameters come before those that it shares.
    own = getattr(factory, "__annotations__", {})
    for key, parameter in sorted(signature.parameters.items(), key=lambda item: item[0] not in own):
        if key in _ALWAYS_THERE or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            continue
        known = parameter.default is not parameter.empty
        shown.append(spell("", **{key: parameter.default})[1:-1] if known else key)
    return ", ".join(shown)
