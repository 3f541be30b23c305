"""The operator that a saved description stands for."""

from __future__ import annotations

from typing import Any

import torch

from equivae.errors import InputError
from equivae.operators.conjugation import ConjugatedOperator, Element
from equivae.operators.modules import ConvOperator, LatentOperator, ResidualOperator
from equivae.operators.phases import Geometry, PhaseOperator
from equivae.operators.seams import SeamOperator, Window

__all__ = ["build_operator"]

_KINDS = ("conv", "network", "phases", "seam", "conjugation")


def build_operator(config: dict[str, Any]) -> LatentOperator:
    """The operator that `config()` describes, unfitted. `InputError` for an unknown kind, or a broken one."""
    kind = config.get("kind")
    if kind not in _KINDS:
        raise InputError(
            f"unknown kind of latent operator {kind!r}; this version reads {', '.join(map(repr, _KINDS))}."
        )
    try:
        if kind == "phases":
            return _phases(config)
        if kind == "conv":
            return _convolution(config)
        if kind == "seam":
            return _seam(config)
        if kind == "conjugation":
            return _conjugation(config)
        # Version 1 had the base's own settings beside the network's.
        base = build_operator(config.get("base") or {**config, "kind": "conv"})
        return ResidualOperator(base, config["width"], config["layers"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the description of a latent operator of kind {kind!r} is broken: "
            f"{type(error).__name__} {error}."
        ) from error


def _convolution(config: dict[str, Any]) -> ConvOperator:
    size = config["kernel_size"]
    return ConvOperator(
        config["channels"],
        size if isinstance(size, int) else tuple(size),
        config["padding"],
        border=bool(config.get("border", False)),
        magnitude=int(config.get("magnitude", 0)),
    )


def _seam(config: dict[str, Any]) -> SeamOperator:
    given = config["window"]
    window = Window(tuple(given["size"]), tuple(given["place"]), bool(given["pastes"]))
    return SeamOperator(config["channels"], config["kernel_size"], window)


def _conjugation(config: dict[str, Any]) -> ConjugatedOperator:
    channels, order, signs = config["channels"], tuple(config["order"]), tuple(config["signs"])
    if sorted(order) != list(range(channels)) or len(signs) != channels or {*signs} - {-1, 1}:
        raise ValueError("of its order and signs")
    element = Element(dict(config["move"]), order, signs)
    kernel = tuple(config["kernel_size"])
    return ConjugatedOperator(element, channels, kernel, config["width"], config["couplings"])


def _phases(config: dict[str, Any]) -> PhaseOperator:
    return PhaseOperator(
        config["channels"],
        tuple(config["kernel_size"]),
        Geometry.of(config["geometry"]),
        torch.zeros(config["phases"], 2),
        config["spread"],
        inputs=config["inputs"],
        border=config["border"],
        magnitude=config["magnitude"],
        blended=bool(config.get("blended", False)),  # version 2 began without
    )
