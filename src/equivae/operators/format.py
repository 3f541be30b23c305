"""The file of a latent op: safetensors whose metadata hold a versioned JSON header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from equivae.errors import InputError, first_line
from equivae.operators.build import build_operator
from equivae.operators.conjugation import ConjugatedOperator
from equivae.operators.modules import LatentOperator

__all__ = ["FILE", "MAPS", "OLD_HEADER", "VERSION", "metadata_of", "read_op", "undoing"]

VERSION = 2
FILE, OLD_HEADER = "latent_op.safetensors", "latent_op.json"
MAPS = {"map": "LatentMap", "preview": "LatentPreview"}
"""Kinds of files whose op is not a transform's, and what stands for them."""

_KEY, _KIND = "equivae", "latent_op"


def metadata_of(header: dict[str, Any]) -> dict[str, str]:
    """A header as safetensors keeps it."""
    return {"format": _KIND, _KEY: json.dumps(header)}


def read_op(path: str | Path) -> tuple[dict[str, Any], dict[str, LatentOperator]]:
    """Header and operators, by `forward_operator` and `inverse_operator`.

    Args:
        path: the file, or the folder that it lies in.

    Raises `InputError`, in one sentence, for what is not a latent op, is cut, or is of a later version.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"{path} holds no latent op: {FILE} is missing; pass a file or a folder that "
            "FittedTransform.save wrote."
        )
    metadata, weights = _read(file)
    header = _header(file, metadata)
    try:
        configs = dict(header["operators"])
        known = isinstance(header["transform"], str) and "name" in header
        known = known and header["inverse"] in ("same", "own", "none", "derived")
        if not known or "forward_operator" not in configs:
            raise KeyError("name, transform, inverse or forward_operator")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the header of {file} is incomplete: {error} is missing.") from error
    operators = {key: build_operator(config) for key, config in configs.items()}
    if (header["inverse"] == "own") != ("inverse_operator" in operators):
        raise InputError(
            f"the header of {file} says {header['inverse']!r} of an inverse that differs."
        )
    derived = isinstance(operators["forward_operator"], ConjugatedOperator)
    if header["inverse"] == "derived" and not derived:
        raise InputError(f"the header of {file} derives an inverse that its kind has not.")
    try:
        nn.ModuleDict(operators).load_state_dict(weights)
    except Exception as error:
        raise InputError(
            f"the weights in {file} do not fit its header: {first_line(error)}."
        ) from error
    return header, operators


def undoing(header: dict[str, Any], operators: dict[str, LatentOperator]) -> LatentOperator | None:
    """The operator of the inverse, of what `read_op` gave."""
    forward = operators["forward_operator"]
    if header["inverse"] == "derived":
        assert isinstance(forward, ConjugatedOperator)
        return forward.undoing
    return {"same": forward, "own": operators.get("inverse_operator"), "none": None}[
        header["inverse"]
    ]


def _read(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(file, framework="pt") as opened:
            weights = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            return opened.metadata() or {}, weights
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file} is cut or no safetensors file: {first_line(error)}; copy it again."
        ) from error


def _header(file: Path, metadata: dict[str, str]) -> dict[str, Any]:
    old = file.with_name(OLD_HEADER)
    if _KEY in metadata:
        place, text, versions = str(file), metadata[_KEY], ("version", VERSION)
    elif old.is_file():
        place, versions = str(old), ("schema", 1)
        try:
            text = old.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError) as error:
            raise InputError(f"{old} cannot be read: {first_line(error)}.") from error
    else:
        raise InputError(
            f"{file} is not a latent op: its metadata have no header, and {OLD_HEADER}, which version 0.1 "
            "wrote, is missing beside it."
        )
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"the header in {place} is not JSON: {first_line(error)}.") from error
    if not isinstance(header, dict):
        raise InputError(
            f"the header in {place} is not a JSON object; it was not written by equivae."
        )
    key, newest = versions
    if header.get(key) != newest:
        raise InputError(
            f"{place} has {key} {header.get(key)!r}, this version of equivae reads {newest}."
        )
    return header
