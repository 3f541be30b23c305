"""The set of images that the rest of the library sees."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from equivae.data.base import Source, digest
from equivae.data.buckets import Buckets
from equivae.data.draws import drawing, draws_anything
from equivae.data.replacing import Losses, filled_up, shared_zeros
from equivae.data.restoring import Restored
from equivae.data.unreadable import UnreadableImage
from equivae.errors import InputError

__all__ = ["ImageDataset"]

logger = logging.getLogger(__name__)

_WATCHED = 4  # images whose reading tells whether it draws
_NEIGHBOURS = 16  # tried in the place of an image that cannot be read


class ImageDataset(Dataset[Tensor]):
    """Images of one size from any source, a map-style dataset that goes to worker processes.

    Attributes:
        names: what each image is called in reports: its file name, or its position.
        skipped: `(name, reason)` of every image that could not be read and was left out.
        left_out: what the rules for folders left out, as reason to names.

    Items are float32 tensors `(C, R, R)` in [-1, 1]. Made by `load_images`. A picture that breaks or
    vanishes later is replaced by the next one of the set that can be read, see `replaced`.
    """

    def __init__(
        self,
        source: Source,
        places: Sequence[int] | None = None,
        *,
        skipped: Sequence[tuple[str, str]] = (),
        left_out: Mapping[str, Sequence[str]] | None = None,
        losses: Losses | None = None,
    ) -> None:
        whole = list(range(len(source)))
        self._source = source
        self._places = whole if places is None else list(places)
        self._whole = self._places == whole
        self._losses = Losses(len(source)) if losses is None else losses
        self._draws = shared_zeros(4, torch.int64)
        self.names = [source.names[place] for place in self._places]
        self.skipped = list(skipped)
        self.left_out = {reason: list(names) for reason, names in (left_out or {}).items()}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        return self.take(index)[0]

    def take(self, index: int) -> tuple[Tensor, int]:
        """An image, and the position of the image that it is: a neighbour's where that stands in for it."""
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"index {index} is outside a set of {count} images")
        first: UnreadableImage | None = None
        fresh = False
        for step in range(min(count, _NEIGHBOURS + 1)):
            place = self._places[(index + step) % count]
            try:
                image = self._read(place)
            except UnreadableImage as error:
                fresh = self._losses.note(place, error.reason) or (fresh and step > 0)
                first = first or error
                continue
            if first is not None and fresh:
                name, other = self.names[index], self._source.names[place]
                logger.warning("image %s is replaced by %s: %s", name, other, first.reason)
            return image, (index + step) % count
        assert first is not None
        others = f", nor can the {step} after it" if step else ""
        raise UnreadableImage.named(self.names[index], f"{first.reason}{others}") from first

    def read(self, index: int) -> Tensor:
        """An image that nothing replaces; `UnreadableImage` if it cannot be read."""
        return self._read(self._places[index])

    def _read(self, place: int) -> Tensor:
        on, *position = self._draws.tolist()
        seeded = bool(on) and self._source.draws
        with drawing(*position, place) if seeded else nullcontext():
            image = self._source.read(place)
        if not torch.isfinite(image).all():
            raise InputError(f"image {self._source.names[place]} holds NaN or infinite values.")
        return image

    def take_together(self, indices: Sequence[int]) -> list[Tensor]:
        """Images of one size; one that cannot be read is replaced by another one of these."""
        found: list[Tensor | None] = []
        first: UnreadableImage | None = None
        for index in indices:
            try:
                found.append(self.read(index))
            except UnreadableImage as error:
                found.append(None)
                first = first or error
                if self._losses.note(self._places[index], error.reason):
                    logger.warning("%s Another one of its batch stands in for it.", error)
        whole = filled_up(found)
        if whole is None:
            raise UnreadableImage(f"{first} Nor can any other image of its batch.")
        return whole

    def prepared_at(self, resolution: int | Buckets) -> ImageDataset:
        """The same images, resized and cropped otherwise."""
        again = copy(self)
        again._source = self._source.prepared_at(resolution)
        return again

    def all_sides(self) -> list[tuple[int, int]]:
        """Height and width of every image before it is prepared, from its header where it has one."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self._sides, range(len(self))))

    def _sides(self, index: int) -> tuple[int, int]:
        sides = self._source.sides(self._places[index])
        if sides is not None:
            return sides
        place = self._places[index]
        try:
            with drawing(0, place):
                height, width = self._source.prepared_at(None).read(place).shape[-2:]
        except UnreadableImage:  # told of when it is its turn
            return 1, 1
        return int(height), int(width)

    def check_one_size(self) -> None:
        """Raise `InputError` if two images are known to have different sizes, before any of them is read."""
        first: tuple[str, tuple[int, int]] | None = None
        for name, place in zip(self.names, self._places, strict=True):
            sides = self._source.sides(place)
            if sides is None:
                continue
            first = first or (name, sides)
            if sides != first[1]:
                height, width = first[1]
                raise InputError(
                    f"the images have different sizes, {first[0]} {height}x{width} and {name} "
                    f"{sides[0]}x{sides[1]}; pass resolution=256, or another one, to which they "
                    "are resized and cropped."
                )

    @property
    def replaced(self) -> list[tuple[str, str]]:
        """`(name, reason)` of the images that a neighbour stood in for so far, in any worker process."""
        lost = self._losses.places()
        return [
            (name, self._losses.reason(place))
            for name, place in zip(self.names, self._places, strict=True)
            if place in lost
        ]

    def set_draws(self, seed: int, epoch: int = 0, rank: int = 0) -> None:
        """Make every item a function of `(seed, epoch, rank, index)`, whichever process reads it.

        Reading an item that draws random numbers (an augmentation in a torch `Dataset` or in
        `with_transform`) then seeds the global generators of Python, numpy and torch by that place, and puts
        them back. Workers that run already follow. Generators that a dataset keeps for itself are its own.

        ```python
        import torch

        import equivae

        noisy = equivae.data.load_images(torch.utils.data.TensorDataset(torch.zeros(4, 3, 8, 8)))
        noisy.set_draws(seed=0, epoch=1)
        ```
        """
        numbers = [1, *((number + 2**63) % 2**64 - 2**63 for number in (seed, epoch, rank))]
        self._draws.copy_(torch.tensor(numbers))

    @property
    def draws(self) -> bool:
        """Whether reading an image draws random numbers, as far as the first few tell."""
        if not self._source.draws:
            return False
        first = self._places[:_WATCHED]
        return any(draws_anything(partial(self._watched, place)) for place in first)

    def _watched(self, place: int) -> None:
        with suppress(UnreadableImage):
            self._source.read(place)

    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell this set from another: its images, their order and preparation.

        Equal in every process. Cheap: of files the size and the first bytes are read, no picture is decoded.
        """
        base = self._source.fingerprint()
        if self._whole:
            return base
        return digest([base, *(str(place) for place in self._places)])

    def contents(self, indices: Sequence[int]) -> list[str]:
        """What identifies all of some images, each in 16 digits, beside `about`; reads every one of them."""
        return [self._source.content(self._places[index]) for index in indices]

    def subset(self, indices: Sequence[int]) -> ImageDataset:
        """Some of the images, in the order given."""
        some = ImageDataset(
            self._source,
            [self._places[i] for i in indices],
            skipped=self.skipped,
            left_out=self.left_out,
            losses=self._losses,
        )
        some._draws.copy_(self._draws)
        return some

    def split(self, fraction: float, seed: int) -> tuple[ImageDataset, ImageDataset]:
        """The set without, and with, a random share of it: training and validation images."""
        if not 0.0 <= fraction < 1.0:
            raise InputError(f"validation_split must lie in [0, 1), got {fraction}.")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).tolist()
        held_out = round(len(self) * fraction)
        if fraction > 0:
            held_out = min(max(held_out, 1), len(self) - 1)
        return self.subset(sorted(order[held_out:])), self.subset(sorted(order[:held_out]))

    def record(self) -> dict[str, Any]:
        """The set in JSON types, for `restore`: its fingerprint, and the name and mark of every image."""
        return {
            "fingerprint": self.fingerprint(),
            "about": self._source.about(),
            "images": [list(pair) for pair in zip(self.names, self.marks(), strict=True)],
        }

    def about(self) -> str:
        """The kind of the source and how its items are prepared."""
        return self._source.about()

    def marks(self) -> list[str]:
        """What identifies each image beside its name, see `record`."""
        marks = self._source.marks()
        return [marks[place] for place in self._places]

    def restore(self, record: Mapping[str, Any]) -> ImageDataset:
        """The set that `record` speaks of, made of the images of this one, so that a run can go on.

        Length, order and fingerprint are those of the record. An image that is gone is replaced by its
        neighbour and named in `replaced`; what is new is left out. Raises `InputError`, with what differs,
        when more than one image in ten is gone or another one, or the preparation differs.
        """
        if record["fingerprint"] == self.fingerprint():
            return self
        restored = Restored(self._source, self._places, record)
        return ImageDataset(restored, skipped=self.skipped, left_out=self.left_out)
