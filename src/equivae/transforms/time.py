"""Beyond images: time reversal and time shift for video and audio, polarity for audio."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from equivae.errors import InputError
from equivae.transforms.base import Transform
from equivae.transforms.checks import is_whole
from equivae.transforms.placing import CellTransform
from equivae.transforms.spelling import spell

__all__ = ["Polarity", "TimeReverse", "TimeShift"]

_TIME_AXIS = {3: -1, 5: -3}


def _time_axis(tensor: Tensor, name: str) -> int:
    if tensor.ndim not in _TIME_AXIS:
        raise InputError(
            f"transform {name!r} acts on the time axis of audio (B, C, T) or video (B, C, T, H, W); got "
            f"a tensor of shape {tuple(tensor.shape)}."
        )
    return _TIME_AXIS[tensor.ndim]


@dataclass(frozen=True, repr=False, eq=False)
class TimeReverse(Transform):
    """Time runs backwards, in `(B, C, T)` or `(B, C, T, H, W)`.

    The latents of a causal video autoencoder, whose first frame has a step of its own, are no such
    grid: there the two ops do not match.
    """

    layouts = ("video", "audio")
    name = "time_reverse"

    def pixel(self, x: Tensor) -> Tensor:
        return x.flip(_time_axis(x, self.name))

    def latent(self, z: Tensor) -> Tensor:
        return z.flip(_time_axis(z, self.name))

    @property
    def inverse(self) -> TimeReverse:
        return self


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TimeShift(CellTransform):
    """A cyclic shift along time, in `(B, C, T)` or `(B, C, T, H, W)`.

    Args:
        steps: latent steps by which everything comes later.
        cell: frames, or audio samples, per latent step, the VAE's time factor, which the pixel op needs; see
            `Transform.at_factor`.
    """

    steps: int = 1
    layouts = ("video", "audio")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.steps):
            raise InputError(f"time_shift moves by whole latent steps, got {self.steps}.")

    @property
    def name(self) -> str:  # type: ignore[override]
        return spell("time_shift", steps=self.steps)

    def pixel(self, x: Tensor) -> Tensor:
        axis = _time_axis(x, self.name)
        return x.roll(int(self.steps) * self.pixels_per_cell, axis)

    def latent(self, z: Tensor) -> Tensor:
        return z.roll(int(self.steps), _time_axis(z, self.name))

    @property
    def inverse(self) -> TimeShift:
        return dataclasses.replace(self, steps=-self.steps)

    def _own_factor(self, factor: int, time_factor: int | None) -> int | None:
        return time_factor


@dataclass(frozen=True, repr=False, eq=False)
class Polarity(Transform):
    """The sign of an audio wave `(B, C, T)`, and of its latent, is reversed.

    A codec with an odd latent keeps it as it is; for another response of the channels use
    `with_representation`.
    """

    linear = True
    layouts = ("audio",)
    name = "polarity"

    def pixel(self, x: Tensor) -> Tensor:
        return -x

    def latent(self, z: Tensor) -> Tensor:
        return -z

    @property
    def inverse(self) -> Polarity:
        return self
