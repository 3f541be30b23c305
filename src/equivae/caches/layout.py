"""What a format of cached latents is: its files, what is in them, and how a moved copy is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from equivae.caches.op import CacheOp
from equivae.caches.space import LatentSpace

__all__ = ["CacheFormat", "Job", "Picture", "State", "Target"]


class State(Enum):
    """What a file holds of the moved latents already."""

    MISSING = "missing"
    DONE = "done"  # by this very op
    OTHER_OP = "other op"
    TOOL = "tool"  # the tool's own, encoded from the flipped image


@dataclass(frozen=True)
class Picture:
    """The part of an image that a cached latent encodes.

    Attributes:
        path: of the image.
        resized: width and height that it was resized to; `None` where it was cropped to the latent's shape.
        corner: left and top of the crop in the resized image; `None` for the centre.
    """

    path: Path
    resized: tuple[int, int] | None = None
    corner: tuple[int, int] | None = None


@dataclass(frozen=True)
class Target:
    """Where the moved latents go: into the cache, or into `folder` under the names of `root`."""

    op: CacheOp
    root: Path
    folder: Path | None = None


@dataclass(frozen=True)
class Job:
    """What there is to do for a file.

    Attributes:
        path: of the file.
        latents: batches `(B, c, *grid)` as it holds them.
        keep: takes the moved ones and writes them, originals bit for bit as they were; says how many.
    """

    path: Path
    latents: list[Tensor]
    keep: Callable[[Sequence[Tensor]], int]


class CacheFormat(ABC):
    """A layout of cached latents. One instance for all files; it holds no state.

    Attributes:
        name: as `--format` takes it.
        looks: by what it is known, for messages.
        moves: the transforms that the tool can find again; empty for any.
        in_place: whether moved latents go into the cache, where the tool looks for them.
        scaled: whether the tool scales what it keeps; `None` where that depends on the model.
    """

    name: ClassVar[str]
    looks: ClassVar[str]
    moves: ClassVar[tuple[str, ...]] = ()
    in_place: ClassVar[bool] = True
    scaled: ClassVar[bool | None] = None

    @abstractmethod
    def owns(self, path: Path) -> bool:
        """Whether a file is one of this format, by its name and by what it holds."""

    @abstractmethod
    def read(self, path: Path, channels: int | None = None) -> list[Tensor]:
        """The latents, as batches `(B, c, *grid)`; `channels` tells a video from a batch of images."""

    @abstractmethod
    def state(self, path: Path, target: Target) -> State:
        """What there is of the moved latents."""

    @abstractmethod
    def job(self, path: Path, target: Target) -> Job:
        """The latents of a file that are to be moved, read, and how the moved ones are kept."""

    def growth(self, path: Path) -> int:
        """How many bytes writing needs on the disk, besides what is there; at most."""
        return 2 * path.stat().st_size

    def space(self, path: Path) -> LatentSpace:
        """What the name of a file tells of its VAE."""
        return LatentSpace()

    def scales(self, path: Path) -> bool | None:
        """Whether the latents of a file are scaled; `None` where the format does not tell."""
        return self.scaled

    def factor(self, path: Path) -> int | None:
        """Pixels per latent cell, where a file tells."""
        return None

    def picture(self, path: Path, images: dict[str, Path]) -> Picture | None:
        """The image of a file's only latent, where it can be known. `images` are by their stems."""
        return None
