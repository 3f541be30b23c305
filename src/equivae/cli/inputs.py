"""What the commands make of their words: transforms, images and VAEs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equivae
from equivae.errors import InputError
from equivae.processes import process_state
from equivae.transforms.groups import split_transforms

__all__ = ["images_from", "load_model", "transforms_of"]


def transforms_of(transforms: str) -> list[str]:
    names = split_transforms(transforms)
    equivae.resolve_transforms(names)
    return names


def images_from(folder: Path | None, dataset: str | None, option: str) -> Path | str:
    if (folder is None) == (dataset is None):
        raise InputError(
            f"pass images with --{option} FOLDER or with --dataset_name NAME, one of them."
        )
    return folder if folder is not None else str(dataset)


def load_model(
    name: str,
    subfolder: str | None,
    variant: str | None,
    revision: str | None,
    config: str | None,
) -> Any:
    options = {"subfolder": subfolder, "variant": variant, "revision": revision, "config": config}
    vae = equivae.load_vae(name, **{k: v for k, v in options.items() if v is not None})
    return vae.to(process_state().device)
