"""Blending: every sample mixed with another."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equivae.errors import InputError
from equivae.transforms.base import Transform
from equivae.transforms.checks import check_fields, check_range, is_whole
from equivae.transforms.families.drawing import Family, Sampler
from equivae.transforms.resampled.parameters import Parameter
from equivae.transforms.spelling import spell

__all__ = ["Blend", "RandomBlend"]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Blend(Transform):
    """HakuLatent's blending: every sample is mixed with another, with the same weight in both spaces,
    `T(x)_i = w x_i + (1 - w) x_j`. No move at all: it asks for a latent space that is linear.

    Args:
        weight: `w`, or one per sample.
        partner: `j` for every `i`; without it the sample before.
    """

    weight: Parameter = 0.5
    partner: Tensor | None = None
    linear = True
    mixes_samples = True
    layouts = ("image", "video", "audio")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.partner is not None and not isinstance(self.partner, Tensor):
            object.__setattr__(self, "partner", _rows(self.partner))

    @property
    def name(self) -> str:  # type: ignore[override]
        partner = {} if self.partner is None else {"partner": self.partner}
        return spell("blend", weight=self.weight, **partner)

    def _mix(self, batch: Tensor) -> Tensor:
        if len(batch) == 1:
            warnings.warn(
                f"transform {self.name!r} mixes every sample with another, and leaves the only one of this "
                "batch as it is; give at least two.",
                RuntimeWarning,
                stacklevel=3,
            )
        weight = torch.as_tensor(self.weight, dtype=batch.dtype, device=batch.device)
        if weight.ndim and weight.shape[0] not in (1, batch.shape[0]):
            raise InputError(
                f"transform {self.name!r} was drawn for {weight.shape[0]} samples, got "
                f"{batch.shape[0]}; draw after selecting the samples."
            )
        if self.partner is not None and not _suits(self.partner, len(batch)):
            raise InputError(
                f"transform {self.name!r} names {len(self.partner)} partners, which are no rows of a batch "
                f"of {len(batch)}; draw after selecting the samples."
            )
        weight = weight.reshape(-1, *[1] * (batch.ndim - 1))
        other = batch.roll(1, 0) if self.partner is None else batch[self.partner.to(batch.device)]
        return weight * batch + (1 - weight) * other

    def pixel(self, x: Tensor) -> Tensor:
        return self._mix(x)

    def latent(self, z: Tensor) -> Tensor:
        return self._mix(z)


def _suits(partner: Tensor, count: int) -> bool:
    return len(partner) == count and bool(((partner >= -count) & (partner < count)).all())


def _rows(partner: Any) -> Tensor:
    if not isinstance(partner, (tuple, list)) or not all(map(is_whole, partner)):
        raise InputError(f"partner must be a row of the batch for every sample, got {partner!r}.")
    return torch.tensor(partner, dtype=torch.long)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RandomBlend(Family):
    """Blending with a drawn partner, another sample, and a drawn weight.

    Args:
        weight: the range of the weight of a sample itself.
        same_on_batch: one weight for the whole batch.
    """

    weight: tuple[float, float] = (0.5, 1.0)
    same_on_batch: bool = False
    mixes_samples = True
    layouts = ("image", "video", "audio")
    registered_name = "random_blend"

    def __post_init__(self) -> None:
        check_fields(self)
        check_range("weight", self.weight)

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        # A random ring: no sample is its own partner, and each of the others is as likely.
        ring = torch.randperm(batch_size, generator=generator)
        partner = torch.empty_like(ring)
        partner[ring] = ring.roll(1)
        weight = Sampler(batch_size, generator, self.same_on_batch).uniform(*self.weight)
        return Blend(weight=weight, partner=partner)
