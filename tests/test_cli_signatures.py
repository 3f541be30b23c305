"""Every argument that a call has in Python has its option on the command line, or is named here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import typer

import equivae
from equivae.cli.program import app

# What a command asks for in other words: images and VAEs by their names, transforms by theirs.
IMAGES = {"images", "progress"}
CALLS: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "fit": (equivae.fit_latent_op, IMAGES | {"vae", "transform"}),
    "fit-group": (equivae.fit_latent_group, IMAGES | {"vae"}),
    "fit-map": (equivae.fit_latent_map, IMAGES | {"vae_a", "vae_b"}),
    "fit-preview": (equivae.fit_preview, IMAGES | {"vae"}),
    "symmetrize": (equivae.symmetrize, IMAGES | {"vae"}),
    "evaluate": (equivae.evaluate, IMAGES | {"vae"}),
    "compare": (equivae.compare, IMAGES | {"vaes"}),
    "playground": (equivae.playground, IMAGES | {"vae"}),
    "finetune": (
        equivae.finetune,
        IMAGES | {"vae", "validation_images", "options"},  # validation_data_dir, and all options
    ),
    "flip-cache": (equivae.caches.transform, {"progress", "vae"}),
    "export": (equivae.export_single_file, {"vae", "path", "overwrite"}),
}


@pytest.mark.parametrize("command", CALLS)
def test_the_command_line_has_what_python_has(command):
    call, python_only = CALLS[command]
    group: Any = typer.main.get_command(app)
    options = {one.name: one for one in group.commands[command].params}
    parameters = inspect.signature(call).parameters
    assert python_only <= set(parameters), "a name here that is no argument any more"
    assert set(parameters) - python_only <= set(options)


@pytest.mark.parametrize("command", ["fit", "fit-group", "fit-map", "fit-preview", "symmetrize"])
def test_defaults_are_the_same(command):
    call, python_only = CALLS[command]
    group: Any = typer.main.get_command(app)
    options = {one.name: one.default for one in group.commands[command].params}
    for name, parameter in inspect.signature(call).parameters.items():
        # Photographs of many sizes are cropped on the command line; a tensor in Python has one size.
        if name in python_only or name in ("resolution", "group"):
            continue
        if name in ("split", "background"):  # left out, so that the default stands
            assert options[name] is None
            continue
        assert str(options[name]) == str(parameter.default), name
