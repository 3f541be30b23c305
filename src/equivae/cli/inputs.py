"""What the commands make of their words: transforms, images and VAEs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import equivae
from equivae.errors import InputError
from equivae.options import quoted
from equivae.processes import process_state
from equivae.transforms.groups import split_transforms

__all__ = [
    "formats_of",
    "given",
    "images_from",
    "load_model",
    "number_or",
    "numbers_of",
    "seeds_of",
    "transforms_of",
]


def number_or(name: str, value: str, word: str, number: str = "a whole number") -> int | str:
    """A whole number, or the one word that may stand in its place; `number` names it in the message."""
    if value != word and not re.fullmatch("[0-9]{1,9}", value):
        raise InputError(f"{name} must be {number} or {word!r}, got {quoted(value)}.")
    return word if value == word else int(value)


def numbers_of(name: str, text: str) -> tuple[float, ...]:
    """Numbers with commas between them; none of them for `none`."""
    if text == "none":
        return ()
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise InputError(
            f"{name} must be numbers with commas between them, or 'none', got {quoted(text)}."
        ) from None


def transforms_of(transforms: str) -> list[str]:
    names = split_transforms(transforms)
    if not names:
        raise InputError(f"transforms={quoted(transforms)} names none; pass one, such as rot180.")
    equivae.resolve_transforms(names)
    return names


def images_from(folder: Path | None, dataset: str | None, option: str) -> Path | str:
    if (folder is None) == (dataset is None):
        raise InputError(
            f"pass images with --{option} FOLDER or with --dataset_name NAME, one of them."
        )
    if folder is None:
        return str(dataset)
    if not folder.exists() and not set("*?[{") & set(str(folder)):  # a pattern of shards
        raise InputError(f"{option} {folder} does not exist; pass a folder of images.")
    return folder


def formats_of(figures: str) -> list[str]:
    from equivae.reporting.content import check_formats

    return check_formats("figures", [word.strip() for word in figures.split(",") if word.strip()])


def seeds_of(models: list[str]) -> list[str] | dict[str, str | list[str]]:
    """VAEs by label, where `NAME=A,B,C` stands for several seeds; as they are where none does."""
    if not any("=" in word and not Path(word).exists() for word in models):
        return models
    found: dict[str, str | list[str]] = {}
    for word in models:
        name, equals, rest = word.partition("=")
        parts = [part.strip() for part in rest.split(",") if part.strip()]
        if equals and not Path(word).exists():
            if not name or not parts:
                raise InputError(f"{quoted(word)} names no VAEs; write it as NAME=A,B,C.")
            label, one = name, parts if len(parts) > 1 else parts[0]
        else:
            label, one = Path(word).name or word, word
        if label in found:
            raise InputError(f"two VAEs are called {quoted(label)}; name them as NAME=PATH.")
        found[label] = one
    return found


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, so that the defaults of what they are passed to stand."""
    return {name: value for name, value in options.items() if value is not None}


def load_model(
    name: str,
    subfolder: str | None,
    variant: str | None,
    revision: str | None,
    config: str | None,
) -> Any:
    options = given(subfolder=subfolder, variant=variant, revision=revision, config=config)
    vae = equivae.load_vae(name, **options)
    return vae.to(process_state().device)
