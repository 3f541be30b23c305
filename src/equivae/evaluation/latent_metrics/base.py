"""What every number of the latent space has in common: what it means, and how it is taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.evaluation.roundtrip import Reconstruction

__all__ = ["Level", "Metric", "Moments", "PerImage", "identity", "psnr_of_mean"]

Level = Literal["fast", "paper", "all"]


def identity(mean: float) -> float:
    return mean


def psnr_of_mean(mean: float) -> float:
    """PSNR in dB of a mean error in [0, 1] units."""
    from equivae.units import psnr

    return psnr(mean)


@dataclass(frozen=True)
class Metric:
    """A number of the latent space.

    Attributes:
        name: under which it stands in `Metrics.latent_metrics`.
        label: what tables call it.
        formula: how it is defined.
        source: whose definition that is.
        unit: `"dB"`, `"1/255"`, or `""` for a plain number.
        larger_is_better: which way is better; `None` where neither is.
        level: from which `metrics` on it is taken.
    """

    name: str
    label: str
    formula: str
    source: str
    unit: str
    larger_is_better: bool | None
    level: Level

    @property
    def direction(self) -> str:
        """In words."""
        return {True: "higher is better", False: "lower is better", None: "neither"}[
            self.larger_is_better
        ]


@dataclass(frozen=True)
class Moments(Metric):
    """One that follows from the channels' moments over all images.

    Attributes:
        of: from the covariance `(c, c)` and the fourth central moments `(c,)` to the number.
    """

    of: Callable[[Tensor, Tensor], float] = field(kw_only=True)


@dataclass(frozen=True)
class PerImage(Metric):
    """One that every image has, so that it has an interval and can be tested.

    Attributes:
        of: from the VAE, a batch and the seeds of its images to `(B,)` numbers; `None` where the latents are
            too small for it or no grids.
        total: from the mean over the images to the number.
        within: where the number can lie; its interval ends there.
    """

    of: Callable[[Autoencoder, Reconstruction, list[int]], Tensor | None] = field(kw_only=True)
    total: Callable[[float], float] = identity
    within: tuple[float, float] = (-math.inf, math.inf)


def generator_of(seed: int) -> torch.Generator:
    """For one image's draws, whatever the batches."""
    return torch.Generator().manual_seed(seed)
