"""A node as data, from which the classes of both node APIs are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["LATENT_OP", "In", "Node", "Out"]

LATENT_OP = "EQUIVAE_LATENT_OP"  # the type of the wire between these nodes


@dataclass(frozen=True)
class In:
    """An input.

    Attributes:
        id: the name of the argument.
        kind: `"LATENT"`, `"IMAGE"`, `"VAE"`, `"INT"`, `"FLOAT"`, `"BOOLEAN"`, `"STRING"`, `"COMBO"` or
            `LATENT_OP`.
        tooltip: shown beside it.
        default: of a widget.
        options: of a combo; a function is asked whenever the list is shown.
        low: the smallest number.
        high: the largest number.
        step: of a number.
        optional: whether it may be left unconnected.
    """

    id: str
    kind: str
    tooltip: str
    default: Any = None
    options: tuple[str, ...] | Callable[[], list[str]] | None = None
    low: float | None = None
    high: float | None = None
    step: float | None = None
    optional: bool = False

    def choices(self) -> list[str]:
        """The options of a combo, now."""
        return list(self.options() if callable(self.options) else self.options or ())


@dataclass(frozen=True)
class Out:
    """An output: its name and the type of its wire."""

    name: str
    kind: str


@dataclass(frozen=True)
class Node:
    """A node: what it is called, what it takes and gives, and the function that runs it."""

    id: str
    title: str
    description: str
    inputs: tuple[In, ...]
    outputs: tuple[Out, ...]
    run: Callable[..., tuple[Any, ...]]
    category: str = "latent/equivae"
