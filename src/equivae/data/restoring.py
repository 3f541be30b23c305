"""A set of images as a run recorded it, made of what is there now."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from torch import Tensor

from equivae.data.base import Source
from equivae.data.names import shorten
from equivae.data.unreadable import UnreadableImage
from equivae.errors import InputError

__all__ = ["Restored"]

logger = logging.getLogger(__name__)


class Restored(Source):
    """The recorded images in their order, those of them that are gone being unreadable."""

    def __init__(self, source: Source, places: Sequence[int], record: Mapping[str, Any]) -> None:
        self._source, self.draws, self._about = source, source.draws, str(record["about"])
        if self._about != source.about():
            raise InputError(
                f"the images are prepared differently from those of the run ({source.about()!r}, it had "
                f"{self._about!r}); give the options of that run."
            )
        self.names = [name for name, _ in record["images"]]
        self._marks = [mark for _, mark in record["images"]]
        self._fingerprint = record["fingerprint"]
        now, marks = {source.names[place]: place for place in reversed(places)}, source.marks()
        self._places = [now.get(name) for name in self.names]
        gone = [name for name, place in zip(self.names, self._places, strict=True) if place is None]
        other = [
            name
            for name, place, mark in zip(self.names, self._places, self._marks, strict=True)
            if place is not None and marks[place] != mark
        ]
        changed = set(other)
        self._places = [
            None if name in changed else place
            for name, place in zip(self.names, self._places, strict=True)
        ]
        self._why = dict.fromkeys(other, "it is another picture than when the run began")
        if 10 * (len(gone) + len(other)) > max(len(self.names), 10):
            what = [f"{len(gone)} are gone ({shorten(gone)})"] if gone else []
            what += [f"{len(other)} are others now ({shorten(other)})"] if other else []
            raise InputError(
                f"these are not the images of the run: of its {len(self.names)}, {' and '.join(what)}; pass "
                "the images it began with, or begin a new run."
            )

        if gone:
            logger.warning(
                "%d of the run's %d images are gone (%s); the next ones take their places",
                len(gone),
                len(self.names),
                shorten(gone),
            )

    def read(self, index: int) -> Tensor:
        place = self._places[index]
        if place is None:
            name = self.names[index]
            why = self._why.get(name, "it is gone since the run began")
            raise UnreadableImage.named(name, why)
        return self._source.read(place)

    def sides(self, index: int) -> tuple[int, int] | None:
        place = self._places[index]
        return None if place is None else self._source.sides(place)

    def prepared_at(self, resolution: Any) -> Source:
        other = copy(self)
        other._source = self._source.prepared_at(resolution)
        return other

    def about(self) -> str:
        return self._about

    def marks(self) -> list[str]:
        return self._marks
