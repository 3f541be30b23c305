"""The parts of `comfy_api.latest` that a node pack calls, for tests: they keep what they are given."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


@dataclass
class Socket:
    """An input or an output."""

    kind: str
    id: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def kind(name: str, *known: str) -> type:
    """`io.Latent` and the like: `Input` refuses what the real one does not take."""

    def make_input(id: str, **options: Any) -> Socket:
        unknown = set(options) - {"optional", "tooltip", *known}
        assert not unknown, f"io.{name}.Input takes no {unknown}"
        return Socket(name.upper(), id, options)

    def make_output(display_name: str | None = None) -> Socket:
        return Socket(name.upper(), display_name)

    return type(name, (), {"Input": staticmethod(make_input), "Output": staticmethod(make_output)})


@dataclass
class Schema:
    node_id: str
    display_name: str
    category: str
    description: str
    inputs: list[Socket]
    outputs: list[Socket]


class NodeOutput:
    def __init__(self, *args: Any) -> None:
        self.args = args


class ComfyNode:
    pass


class ComfyExtension:
    pass


def install() -> None:
    """Put the stub where `import comfy_api.latest` finds it."""
    io = ModuleType("comfy_api.latest.io")
    numbers = ("default", "min", "max", "step")
    for name in ("Latent", "Image", "Vae"):
        setattr(io, name, kind(name))
    for name in ("Int", "Float"):
        setattr(io, name, kind(name, *numbers))
    for name in ("Boolean", "String"):
        setattr(io, name, kind(name, "default"))
    io.Combo = kind("Combo", "options", "default")  # type: ignore[attr-defined]
    io.Custom = lambda name: kind(name)  # type: ignore[attr-defined]
    io.Schema, io.NodeOutput, io.ComfyNode = Schema, NodeOutput, ComfyNode  # type: ignore[attr-defined]
    latest = ModuleType("comfy_api.latest")
    latest.io, latest.ComfyExtension = io, ComfyExtension  # type: ignore[attr-defined]
    sys.modules["comfy_api"] = ModuleType("comfy_api")
    sys.modules["comfy_api.latest"] = latest
