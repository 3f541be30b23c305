"""Gain and mixing of audio: what an autoencoder with a linear latent keeps (arXiv 2510.23530)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from equivae.errors import InputError
from equivae.transforms.base import Transform
from equivae.transforms.checks import check_fields, is_number
from equivae.transforms.spelling import spell

__all__ = ["Gain", "Mix"]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Gain(Transform):
    """An audio wave `(B, C, T)` louder or softer, `x -> factor * x`, and its latent alike. Gains compose.

    The plain latent op is that of a linear autoencoder; `fit_latent_op` finds that of another.

    Args:
        factor: above 0; 0.5 is 6 dB softer.
    """

    factor: float = 0.5
    linear = True
    layouts = ("audio",)

    def __post_init__(self) -> None:
        check_fields(self)
        if not (is_number(self.factor) and self.factor > 0):
            raise InputError(f"factor must be one number above 0, got {self.factor!r}.")

    @property
    def name(self) -> str:  # type: ignore[override]
        return spell("gain", factor=self.factor)

    def pixel(self, x: Tensor) -> Tensor:
        return self.factor * x

    def latent(self, z: Tensor) -> Tensor:
        return self.factor * z

    @property
    def inverse(self) -> Gain:
        return dataclasses.replace(self, factor=1 / self.factor)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Mix(Transform):
    """Audio waves `(B, C, T)` mixed: `T(x)_i = x_i + gain * x_(i-1)`, the one before added to every sample.

    Latents are mixed alike: that of a sum is the sum of the latents. (Unlike `blend`, whose weights sum to 1,
    it tells whether a latent is linear and not merely affine.)

    Args:
        gain: of the one that is added.
    """

    gain: float = 1.0
    linear = True
    mixes_samples = True
    layouts = ("audio",)

    def __post_init__(self) -> None:
        check_fields(self)
        if not is_number(self.gain):
            raise InputError(f"gain must be one finite number, got {self.gain!r}.")

    @property
    def name(self) -> str:  # type: ignore[override]
        return spell("mix", gain=self.gain)

    def _mixed(self, batch: Tensor) -> Tensor:
        return batch + self.gain * batch.roll(1, 0)

    def pixel(self, x: Tensor) -> Tensor:
        return self._mixed(x)

    def latent(self, z: Tensor) -> Tensor:
        return self._mixed(z)
