"""The folder of a symmetrized VAE: `symmetrize.json`, the VAE in `wrapped/`, and the context's latent ops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from equivae.errors import InputError, first_line
from equivae.files.pretrained import load_vae, save_vae
from equivae.files.writing import child, write_beside
from equivae.operators import FittedTransform, load_latent_op
from equivae.transforms import Group, Transform, get_transform

__all__ = ["read_parts", "write_parts"]

_CONFIG, _VAE = "symmetrize.json", "wrapped"
_SCHEMA = 1
_NEEDS = (
    "A symmetrized VAE is not a class of diffusers: loading it needs `pip install equivae` and `import "
    "equivae.symmetry` before the pipeline's from_pretrained, or equivae.load_vae(folder)."
)


def write_parts(
    folder: Path, vae: nn.Module, transforms: dict[str, Transform], settings: dict[str, Any]
) -> None:
    """Write the VAE, the context's latent ops and the settings."""
    folder.mkdir(parents=True, exist_ok=True)
    save_vae(vae, folder / _VAE)
    for name, transform in transforms.items():
        if not isinstance(transform, FittedTransform):
            raise InputError(
                f"the context's transform {name!r} is not a fitted one and cannot be saved."
            )
        transform.save(child(folder, f"context_{name}"))
    content = {"schema": _SCHEMA, "needs": _NEEDS, **settings, "context": list(transforms)}
    text = json.dumps(content, indent=1) + "\n"
    write_beside(folder / _CONFIG, lambda path: _write(path, text))


def read_parts(
    folder: Path, vae: nn.Module | None
) -> tuple[nn.Module, Group | str, dict[str, Transform], dict[str, Any]]:
    """The VAE, the group, the context's latent ops, and what the file says.

    Args:
        folder: where they lie.
        vae: a module that gets the weights, for an autoencoder that is no diffusers class.

    Raises `InputError` when the folder holds none.
    """
    if not (folder / _CONFIG).is_file():
        raise InputError(
            f"{folder} holds no symmetrized VAE: {_CONFIG} is missing; pass a folder that its "
            "save_pretrained wrote."
        )
    content = _read(folder / _CONFIG)
    if vae is None:
        vae = load_vae(folder / _VAE)
    else:
        from safetensors.torch import load_model

        (weights,) = sorted((folder / _VAE).glob("*.safetensors"))
        load_model(vae, str(weights))
    context: dict[str, Transform] = {
        name: load_latent_op(child(folder, f"context_{name}")) for name in content["context"]
    }
    group = content["group"]
    if "elements" in content:  # a group of the user's own is known by nothing else
        group = Group(group, tuple(get_transform(name) for name in content["elements"]))
    return vae, group, context, content


def _read(path: Path) -> dict[str, Any]:
    """The content of `symmetrize.json`; `InputError`, in one sentence, for what is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not JSON: {first_line(error)}.") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != _SCHEMA:
        raise InputError(f"{path} has schema {schema!r}, this version reads {_SCHEMA}.")
    keys = ("group", "method", "margin", "passes", "context")
    missing = [key for key in keys if key not in content]
    if missing:
        raise InputError(f"{path} is incomplete: {', '.join(missing)} missing.")
    return dict(content)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
