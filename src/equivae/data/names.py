"""What images are called in reports, logs and file formats."""

from __future__ import annotations

import os

__all__ = ["display_name", "shorten"]


def display_name(name: str | os.PathLike[str]) -> str:
    r"""A name that every output takes: UTF-8, on one line.

    Bytes that are not UTF-8 (surrogate escapes in Python) and characters that no terminal prints become
    `\xff` and the like.
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(names: list[str], most: int = 3) -> str:
    """The first few names, for a sentence."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
