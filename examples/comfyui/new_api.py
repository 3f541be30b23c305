"""Nodes for ComfyUI's third node API, `comfy_api.latest`."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .description import LATENT_OP, In, Node, Out

__all__ = ["node_class"]

_SOCKETS = {"LATENT": io.Latent, "IMAGE": io.Image, "VAE": io.Vae}
_NUMBERS = {"INT": io.Int, "FLOAT": io.Float}
_WIDGETS = {"BOOLEAN": io.Boolean, "STRING": io.String}
_OP = io.Custom(LATENT_OP)


def node_class(node: Node) -> type:
    """The class that ComfyUI registers."""

    def define_schema(cls: type) -> Any:
        return io.Schema(
            node_id=node.id,
            display_name=node.title,
            category=node.category,
            description=node.description,
            inputs=[_input(one) for one in node.inputs],
            outputs=[_output(one) for one in node.outputs],
        )

    def execute(cls: type, **inputs: Any) -> Any:
        return io.NodeOutput(*node.run(**inputs))

    methods = {"define_schema": classmethod(define_schema), "execute": classmethod(execute)}
    return type(node.id, (io.ComfyNode,), methods)


def _input(one: In) -> Any:
    common = {"optional": one.optional, "tooltip": one.tooltip}
    if one.kind == "COMBO":
        return io.Combo.Input(one.id, options=one.choices(), default=one.default, **common)
    if one.kind in _NUMBERS:
        limits = {"min": one.low, "max": one.high, "step": one.step}
        return _NUMBERS[one.kind].Input(one.id, default=one.default, **limits, **common)
    if one.kind in _WIDGETS:
        return _WIDGETS[one.kind].Input(one.id, default=one.default, **common)
    return _socket(one.kind).Input(one.id, **common)


def _output(one: Out) -> Any:
    kind = io.String if one.kind == "STRING" else _socket(one.kind)
    return kind.Output(display_name=one.name)


def _socket(kind: str) -> Any:
    return _OP if kind == LATENT_OP else _SOCKETS[kind]
