"""Nodes for ComfyUI's first node API: classes with `INPUT_TYPES` and a `FUNCTION`."""

from __future__ import annotations

from typing import Any

from .description import In, Node

__all__ = ["display_names", "mappings"]


def mappings(nodes: tuple[Node, ...]) -> dict[str, type]:
    """`NODE_CLASS_MAPPINGS`."""
    return {node.id: _node_class(node) for node in nodes}


def display_names(nodes: tuple[Node, ...]) -> dict[str, str]:
    """`NODE_DISPLAY_NAME_MAPPINGS`."""
    return {node.id: node.title for node in nodes}


def _node_class(node: Node) -> type:
    def input_types(cls: type) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
        for one in node.inputs:
            found["optional" if one.optional else "required"][one.id] = _input(one)
        return found

    def run(self: Any, **inputs: Any) -> tuple[Any, ...]:
        return node.run(**inputs)

    return type(
        node.id,
        (),
        {
            "INPUT_TYPES": classmethod(input_types),
            "RETURN_TYPES": tuple(one.kind for one in node.outputs),
            "RETURN_NAMES": tuple(one.name for one in node.outputs),
            "FUNCTION": "run",
            "CATEGORY": node.category,
            "DESCRIPTION": node.description,
            "run": run,
        },
    )


def _input(one: In) -> tuple[Any, dict[str, Any]]:
    options = {"default": one.default, "min": one.low, "max": one.high, "step": one.step}
    known = {name: value for name, value in options.items() if value is not None}
    kind = one.choices() if one.kind == "COMBO" else one.kind
    return kind, {**known, "tooltip": one.tooltip}
