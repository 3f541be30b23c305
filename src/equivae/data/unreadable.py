"""What makes a picture unreadable, as opposed to input of the wrong kind."""

from __future__ import annotations

import struct
import zlib

from PIL import Image, UnidentifiedImageError

from equivae.errors import InputError, first_line

__all__ = ["BROKEN", "UnreadableImage", "why"]

# What decoders raise for damaged files and rows; a mistake in a user's code is none of these.
BROKEN = (OSError, EOFError, SyntaxError, struct.error, zlib.error, Image.DecompressionBombError)


class UnreadableImage(InputError):
    """One picture that cannot be read; `reason` says why. A data set puts its neighbour in its place."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message

    @classmethod
    def named(cls, name: str, reason: str) -> UnreadableImage:
        return cls(f"image {name} cannot be read: {reason}.", reason)


def why(error: Exception) -> str:
    """The reason in a few words."""
    if isinstance(error, UnreadableImage):
        return error.reason
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow knows"
    if isinstance(error, FileNotFoundError):
        return "the file is not there"
    return first_line(error) if str(error).strip() else type(error).__name__
