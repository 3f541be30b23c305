"""Images that a torch `Dataset`, a list, or another set of images gives by position."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PIL import Image
from torch import Tensor

from equivae.data.base import Source, digest, digest_of
from equivae.data.draws import drawing
from equivae.data.images import ImageDataset
from equivae.data.preparing import Preparing
from equivae.data.unreadable import BROKEN, UnreadableImage, why

__all__ = ["ItemSource", "PreparedAgain"]

_SAMPLED = 16  # items that a fingerprint reads


class ItemSource(Source):
    """What has a length and gives an item by position."""

    draws = True

    def __init__(self, items: Any, preparing: Preparing) -> None:
        self._items, self._preparing = items, preparing
        self.names = [f"#{i}" for i in range(len(items))]

    def item(self, index: int) -> Any:
        """As the source has it; `UnreadableImage` where its decoder fails."""
        try:
            return self._items[index]
        except BROKEN as error:
            raise UnreadableImage.named(self.names[index], why(error)) from error

    def read(self, index: int) -> Tensor:
        return self._preparing(self.item(index), self.names[index])

    def raw(self, index: int) -> Any:
        """The image of an item, as the source has it."""
        return self._preparing.find(self.item(index), self.names[index])

    def sides(self, index: int) -> tuple[int, int] | None:
        item = self._items[index] if isinstance(self._items, (list, tuple)) else None
        if isinstance(item, Image.Image):
            return item.height, item.width
        if isinstance(item, Tensor) and item.ndim >= 3:
            return int(item.shape[-2]), int(item.shape[-1])
        return None

    def about(self) -> str:
        own = getattr(self._items, "fingerprint", None)
        kind = type(self._items)
        name = f"{kind.__module__}.{kind.__qualname__}"
        return f"items {name} {own() if callable(own) else ''} {self._preparing}"

    def marks(self) -> list[str]:
        """Digests of 16 items, evenly spaced: what such a source holds is known by reading it alone.

        An item that differs each time, since its source draws from a generator of its own, says nothing.
        """
        count = len(self)
        if callable(getattr(self._items, "fingerprint", None)):
            return [""] * count
        sampled = {i * count // _SAMPLED for i in range(_SAMPLED)} if count > _SAMPLED else None
        return [self._mark(i) if sampled is None or i in sampled else "" for i in range(count)]

    def _mark(self, index: int) -> str:
        found = []
        for _ in range(2):
            try:
                with drawing(0, index):
                    found.append(digest_of(self.read(index)))
            except UnreadableImage as error:
                found.append(digest([error.reason]))
        return found[0] if found[0] == found[1] else "random"


class PreparedAgain(Source):
    """Images of another set, resized once more."""

    def __init__(self, images: ImageDataset, preparing: Preparing) -> None:
        self._images, self._preparing = images, preparing
        self.names, self.draws = images.names, images.draws

    def read(self, index: int) -> Tensor:
        return self._preparing(self._images.read(index), self.names[index])

    def about(self) -> str:
        about = self._images.about()
        if self._preparing.resolution is None:
            return about
        return f"{about} > {replace(self._preparing, column=None)}"

    def marks(self) -> list[str]:
        return self._images.marks()
