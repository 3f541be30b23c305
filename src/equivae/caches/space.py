"""What is known of the latents of an op, a VAE or a tool's cache, and whether they can be the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder.latent_scaling import LatentScaling
from equivae.autoencoder.scaling import scaling_of
from equivae.errors import InputError
from equivae.files.fingerprint import fingerprint_of

__all__ = ["LatentSpace", "check_statistics"]

_MOST_RATIO = 3.0  # of root mean squares, between latents of one VAE: photographs differ by less
_MOST_SHIFT = 3.0  # of a channel's mean, in its standard deviations


@dataclass(frozen=True)
class LatentSpace:
    """The latents of one VAE, as far as they are known.

    Attributes:
        name: of the VAE.
        fingerprint: of its weights, as `fingerprint_of` makes it.
        channels: `c`.
        factor: `H / h`.
        scaling: how tools scale them.
        mean: of every channel of unscaled latents.
        std: of every channel of unscaled latents.
    """

    name: str | None = None
    fingerprint: str | None = None
    channels: int | None = None
    factor: int | None = None
    scaling: LatentScaling | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> LatentSpace:
        """From the names and numbers that a latent op's file keeps of its VAE."""
        mean, std = record.get("latents_mean"), record.get("latents_std")
        factor = record.get("scaling_factor")
        scaling = None
        if mean is not None and std is not None:
            scaling = LatentScaling(float(factor or 1.0), tuple(mean), tuple(std))
        elif factor is not None:
            scaling = LatentScaling(float(factor), float(record.get("shift_factor") or 0.0))
        measured = (record.get("mean"), record.get("std"))
        known = [None if values is None else tuple(map(float, values)) for values in measured]
        names = ("name", "fingerprint", "channels", "factor")
        return cls(
            **{n: record.get(n) for n in names}, scaling=scaling, mean=known[0], std=known[1]
        )

    @classmethod
    def of(cls, vae: nn.Module) -> LatentSpace:
        """From a VAE's config and weights."""
        config = getattr(vae, "config", None)
        channels = getattr(config, "latent_channels", None)
        scaling = None if channels is None else scaling_of(vae, channels)
        return cls(
            name=str(getattr(config, "_name_or_path", None) or type(vae).__name__),
            fingerprint=fingerprint_of(vae, torch.float16),
            channels=channels,
            scaling=scaling,
        )

    def over(self, other: LatentSpace) -> LatentSpace:
        """This, and what it does not know from another."""
        unknown = {
            name: getattr(other, name)
            for name in self.__dataclass_fields__
            if getattr(self, name) is None
        }
        return replace(self, **unknown)

    def power(self, scaled: bool) -> float | None:
        """The root mean square that such latents have, where it is known."""
        if self.mean is not None and self.std is not None:
            means, stds = torch.tensor(self.mean), torch.tensor(self.std)
            if scaled and self.scaling is not None:
                means = self.scaling.scale(means[None])[0]
                stds = self.scaling.scale(stds[None] + torch.as_tensor(self.scaling.shift))[0]
            elif scaled:
                return None
            return float((means.square() + stds.square()).mean().sqrt())
        if self.scaling is None:
            return None
        if scaled:
            return 1.0  # what the scaling factor is for
        std = torch.as_tensor(self.scaling.std).float() / self.scaling.factor
        shift = torch.as_tensor(self.scaling.shift).float()
        return float((std.square() + shift.square()).mean().sqrt())


def check_statistics(samples: Sequence[Tensor], space: LatentSpace, scaled: bool) -> None:
    """`InputError` when latents cannot be those of a space: by their power, and by every channel's mean.

    Args:
        samples: some batches `(B, c, *grid)` as the cache holds them.
        space: what is known.
        scaled: whether the cache is taken to hold scaled latents.
    """
    found = _median([float(z.float().square().mean().sqrt()) for z in samples])
    if not math.isfinite(found):
        raise InputError(
            "the cache holds values that are not finite (NaN or infinite); make it anew."
        )
    here, there = space.power(scaled), space.power(not scaled)
    if here is None:
        return
    words = {True: "scaled", False: "unscaled"}
    if (
        there is not None
        and _apart(here, there) > 1.5
        and _apart(found, there) * 1.2 < _apart(found, here)
    ):
        raise InputError(
            f"the cached latents were taken for {words[scaled]} ones, but their root mean square is "
            f"{found:.2f}, "
            f"where that VAE's are {here:.2f} {words[scaled]} and {there:.2f} {words[not scaled]}; say "
            f"which they are with scaled={not scaled}, or pass an op of the VAE that made the cache."
        )
    if _apart(found, here) > _MOST_RATIO and space.std is not None:
        raise InputError(
            f"the cached latents have a root mean square of {found:.2f}, those of the op's VAE "
            f"{here:.2f}: they are another VAE's; pass an op that was fitted for the VAE that made the "
            "cache."
        )
    if space.mean is not None and space.std is not None:
        _check_channels(samples, space, scaled)


def _check_channels(samples: Sequence[Tensor], space: LatentSpace, scaled: bool) -> None:
    assert space.mean is not None
    assert space.std is not None
    axes = [0, *range(2, samples[0].ndim)]
    latents = [z.float() for z in samples]
    if scaled:
        if space.scaling is None:
            return
        latents = [space.scaling.unscale(z) for z in latents]
    means = torch.stack([z.mean(axes) for z in latents]).median(0).values
    off = (means - torch.tensor(space.mean)).abs() / torch.tensor(space.std)
    worst = int(off.argmax())
    if float(off[worst]) > _MOST_SHIFT:
        raise InputError(
            f"channel {worst} of the cached latents has a mean of {float(means[worst]):.2f}, that of the "
            "op's "
            f"VAE {space.mean[worst]:.2f} with a deviation of {space.std[worst]:.2f}: they are another "
            "VAE's; "
            "pass an op that was fitted for the VAE that made the cache."
        )


def _apart(one: float, other: float) -> float:
    """The ratio of two powers, the larger over the smaller."""
    low, high = sorted((max(one, 1e-12), max(other, 1e-12)))
    return high / low


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
