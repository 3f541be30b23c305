"""Transforms of other packages, found through the entry-point group `equivae.transforms`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from equivae.transforms.base import Transform
from equivae.transforms.spelling import NAME, NAME_RULE

__all__ = ["ENTRY_POINT_GROUP", "Plugin", "load_plugins"]

ENTRY_POINT_GROUP = "equivae.transforms"
_seen: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Plugin:
    """One transform of another package: its name, how to build it, and the package."""

    name: str
    factory: Callable[..., Transform]
    package: str


def load_plugins(taken: Collection[str]) -> list[Plugin]:
    """What the entry points name, each once per process; those that fail are left out with a warning.

    An entry point `name = "module:attribute"` leads to a `Transform` subclass, a `Transform`, or a
    function that returns one.

    Args:
        taken: names that are in use, which no plugin may have.
    """
    found: dict[str, Plugin] = {}
    for entry in _fresh(entry_points(group=ENTRY_POINT_GROUP)):
        package = entry.dist.name if entry.dist is not None else entry.value.partition(":")[0]
        if not NAME.fullmatch(entry.name):
            _warn(package, entry, f"that is not a name of a transform, {NAME_RULE}")
            continue
        if entry.name in found or entry.name in taken:
            owner = found[entry.name].package if entry.name in found else "equivae or your own code"
            _warn(package, entry, f"that name belongs to {owner} already")
            continue
        try:
            factory = _as_factory(entry.load())
        except Exception as error:
            _warn(package, entry, f"{type(error).__name__}: {error}")
            continue
        found[entry.name] = Plugin(entry.name, factory, package)
    return list(found.values())


def _fresh(entries: Iterable[EntryPoint]) -> list[EntryPoint]:
    fresh = [entry for entry in entries if (entry.name, entry.value) not in _seen]
    _seen.update((entry.name, entry.value) for entry in fresh)
    return fresh


def _as_factory(loaded: Any) -> Callable[..., Transform]:
    if isinstance(loaded, Transform):
        return lambda: loaded
    if not callable(loaded):
        raise TypeError(f"{loaded!r} is not a transform and builds none")
    return loaded  # type: ignore[no-any-return]


def _warn(package: str, entry: EntryPoint, reason: str) -> None:
    warnings.warn(
        f"the transform {entry.name!r} of the package {package!r} was left out: {reason}.",
        RuntimeWarning,
        stacklevel=2,
    )
