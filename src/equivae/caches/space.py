"""What is known of the latents of an op, a VAE or a tool's cache, and whether they can be the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder.scaling import scaling_of
from equivae.errors import InputError
from equivae.latent_scaling import LatentScaling

__all__ = ["LatentSpace", "check_statistics"]

_MOST_RATIO = 4.0  # of root mean squares, between latents of one VAE: photographs differ by less
_TELLING_RATIO = 1.5  # between scaled and unscaled latents, below which their power tells nothing
_SYNTHETIC_RATIO = 3.0  # between latents of photographs and of the op's one synthetic picture


@dataclass(frozen=True)
class LatentSpace:
    """The latents of one VAE, as far as they are known.

    Attributes:
        name: of the VAE.
        channels: `c`.
        scaling: how tools scale them.
        rms: root mean square of unscaled latents.
        factor: pixels per cell.
    """

    name: str | None = None
    channels: int | None = None
    scaling: LatentScaling | None = None
    rms: float | None = None
    factor: int | None = None

    @classmethod
    def of_op(cls, op: Any) -> LatentSpace:
        """What a fitted op keeps of its VAE: the channels' means and deviations, in `op.vae.values`."""
        vae = getattr(op, "vae", None)
        if vae is None:
            return cls()
        values = [float(value) for value in vae.values]
        power = sum(value * value for value in values) / max(1, len(values) // 2)
        scaling = getattr(vae, "scaling", None)
        rms = math.sqrt(power) if values else None
        return cls(vae.kind, vae.channels, scaling, rms, getattr(vae, "factor", None))

    @classmethod
    def of_vae(cls, vae: nn.Module) -> LatentSpace:
        """From a VAE's config."""
        channels = getattr(getattr(vae, "config", None), "latent_channels", None)
        scaling = None if channels is None else scaling_of(vae, channels)
        return cls(type(vae).__name__, channels, scaling)

    def over(self, other: LatentSpace) -> LatentSpace:
        """This, and what it does not know from another."""
        unknown = {
            name: getattr(other, name)
            for name in self.__dataclass_fields__
            if getattr(self, name) is None
        }
        return replace(self, **unknown)

    def power(self, scaled: bool) -> float | None:
        """The root mean square that such latents have, where it is known.

        Scaling brings latents of photographs to 1, so that its numbers say what they are without; the op
        knows one synthetic picture, whose latents tell where the numbers are not of this VAE.
        """
        if self.scaling is None or self.scaling.does_nothing:
            return 1.0 if scaled else self.rms
        std = torch.as_tensor(self.scaling.std).float() / self.scaling.factor
        shift = torch.as_tensor(self.scaling.shift).float()
        unscaled = float((std.square() + shift.square()).mean().sqrt())
        if self.rms is not None and _apart(unscaled, self.rms) > _SYNTHETIC_RATIO:
            return self.rms / float(std.square().mean().sqrt()) if scaled else self.rms
        return 1.0 if scaled else unscaled


def check_statistics(
    samples: Sequence[Tensor], space: LatentSpace, scaled: bool, why: str, *, sure: bool = False
) -> str:
    """How the latents were taken, and why, in one line.

    Args:
        samples: some batches `(B, c, *grid)` as the cache holds them.
        space: what is known.
        scaled: whether the cache is taken to hold scaled latents.
        why: who says so.
        sure: whether the user does, who is believed.

    Raises `InputError` when their power tells that they cannot be what they are taken for.
    """
    powers = sorted(float(z.float().square().mean().sqrt()) for z in samples)
    found = powers[len(powers) // 2]
    if not math.isfinite(found):
        raise InputError(
            "the cache holds values that are not finite (NaN or infinite); create it again."
        )
    here, there = space.power(scaled), space.power(not scaled)
    word, other = ("scaled", "unscaled") if scaled else ("unscaled", "scaled")
    line = f"latents taken as {word}, {why}: their root mean square is {found:.2f}"
    if here is None or there is None:
        return f"{line}, and the op does not know its VAE's"
    telling = _apart(here, there) > _TELLING_RATIO
    contrary = telling and _apart(found, there) < _apart(found, here)
    line += f", that VAE's about {here:.2f} {word} and {there:.2f} {other}"
    if sure:
        return f"{line}, which looks {other}" if contrary else line
    if contrary:
        raise InputError(
            f"the cached latents were taken for {word} ones, but their root mean square is {found:.2f}, "
            f"and that VAE's are about {here:.2f} {word} and {there:.2f} {other}; say which they are with "
            f"scaled={not scaled}, or pass an op of the VAE that made the cache."
        )
    if _apart(found, here) > _MOST_RATIO:
        raise InputError(
            f"the cached latents have a root mean square of {found:.2f}, where that VAE's have about "
            f"{here:.2f}: they are another VAE's; pass an op that was fitted for the VAE that made the "
            "cache."
        )
    return line if telling else f"{line}, too near to tell them apart"


def _apart(one: float, other: float) -> float:
    """The ratio of two powers, the larger over the smaller."""
    low, high = sorted((max(one, 1e-12), max(other, 1e-12)))
    return high / low
