"""What every random transform is: it has parameters once they are drawn."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from equivae.errors import InputError
from equivae.transforms.base import Transform
from equivae.transforms.spelling import spell

__all__ = ["FIVE_PLACES", "Family", "Places", "RandomTransform", "Sampler"]

Places = Literal["any", "five"]
"""Where a window may lie: anywhere, or in a corner or the centre."""

FIVE_PLACES = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))
"""`(y, x)` of HakuLatent's crops, in their order."""


class Sampler:
    """Draws parameters for one call: one value, or one per sample."""

    def __init__(
        self, batch_size: int, generator: torch.Generator | None, same_on_batch: bool
    ) -> None:
        self.count = 1 if same_on_batch else batch_size
        self.generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """`(B, *shape)` values, float64, uniform between the two."""
        unit = torch.rand(self.count, *shape, generator=self.generator, dtype=torch.float64)
        return low + (high - low) * unit

    def pick(self, values: Sequence[Any]) -> list[Any]:
        """`B` of the values, each as likely as the others."""
        places = torch.randint(len(values), (self.count,), generator=self.generator)
        return [values[place] for place in places.tolist()]

    def place(self, places: Places) -> tuple[Tensor, Tensor]:
        """`y` and `x` of windows, `(B,)` each in [0, 1]."""
        if places == "any":
            return self.uniform(0, 1), self.uniform(0, 1)
        y, x = torch.tensor(self.pick(FIVE_PLACES), dtype=torch.float64).unbind(1)
        return y, x


class RandomTransform(Transform):
    """A transform that has parameters only once they are drawn: `draw` gives the fixed one.

    The losses and metrics draw; by hand it is `t.draw(batch_size, generator)`. Its own ops raise
    `InputError`, because pixels and latent would have to guess the same parameters.
    """

    layouts: tuple[str, ...] = ("image", "video")

    @abstractmethod
    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform: ...

    def pixel(self, x: Tensor) -> Tensor:
        raise self._undrawn()

    def latent(self, z: Tensor) -> Tensor:
        raise self._undrawn()

    def mask(self, x: Tensor) -> Tensor | None:
        raise self._undrawn()

    def _undrawn(self) -> InputError:
        return InputError(
            f"transform {self.name!r} is random: draw its parameters first, with "
            "t.draw(batch_size, generator), and apply what that returns."
        )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Family(RandomTransform):
    """A random transform whose options are dataclass fields; the name shows those that were changed."""

    registered_name = ""

    @property
    def name(self) -> str:  # type: ignore[override]
        fields = [f for f in dataclasses.fields(self) if f.name != "cell"]
        values = {f.name: getattr(self, f.name) for f in fields}
        return spell(
            self.registered_name,
            **{f.name: values[f.name] for f in fields if values[f.name] != f.default},
        )
