"""What every kind of source has in common."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from equivae.data.unreadable import UnreadableImage
from equivae.errors import InputError

__all__ = ["Source", "digest", "digest_of"]


def digest(parts: Iterable[str | bytes]) -> str:
    """16 hexadecimal digits that are the same in every process and on every machine."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        encoded = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        found.update(len(encoded).to_bytes(8, "little"))
        found.update(encoded)
    return found.hexdigest()


def digest_of(image: Tensor) -> str:
    """A digest of shape, dtype and values."""
    values = image.detach().cpu().contiguous()
    flat = values.reshape(-1).view(torch.uint8).numpy().tobytes()
    return digest([f"{tuple(values.shape)} {values.dtype}", flat])


class Source(ABC):
    """Where images come from: a picklable reader by position, with a fingerprint.

    Attributes:
        names: what each image is called in reports.
        draws: whether reading may draw random numbers, from the generators of Python, numpy and torch.

    A subclass has `read`, `about` and `marks`, and no closures, so that it goes to worker processes.
    """

    names: list[str]
    draws = False
    _fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, index: int) -> Tensor:
        """An image as float32 `(C, H, W)` in [-1, 1]; `UnreadableImage` where a picture is broken."""

    @abstractmethod
    def about(self) -> str:
        """The kind of the source and how its items are prepared."""

    @abstractmethod
    def marks(self) -> list[str]:
        """What identifies each image beside its name, cheaply: its size, a digest of its content, or ''."""

    def content(self, index: int) -> str:
        """What identifies all of an image, unlike its mark, which may be made of its first bytes alone."""
        try:
            return digest_of(self.read(index))
        except UnreadableImage as error:
            return digest([error.reason])

    def sides(self, index: int) -> tuple[int, int] | None:
        """Height and width of an image, where they can be told without reading its pixels."""
        return None

    def prepared_at(self, resolution: Any) -> Source:
        """The same images, resized and cropped otherwise; `InputError` for a source that does neither."""
        preparing = getattr(self, "_preparing", None)
        if preparing is None:
            raise InputError(
                f"{type(self).__name__} does not resize its images; leave buckets out."
            )
        other = copy(self)
        vars(other).update(_preparing=replace(preparing, resolution=resolution), _fingerprint=None)
        return other

    def fingerprint(self) -> str:
        """A short digest of what is read: preparation, and the names and marks of all images, in order."""
        if self._fingerprint is None:
            self._fingerprint = digest([self.about(), *self.names, *self.marks()])
        return self._fingerprint
