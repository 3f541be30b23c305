"""Scaling factors that were guessed: known to be so, and refused where they would count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from equivae.errors import InputError

__all__ = [
    "ScalingDoubt",
    "ScalingDoubtWarning",
    "check_scaling_is_known",
    "doubt_of",
    "note_doubt",
]

_ATTRIBUTE = "_scaling_doubt"  # of the module, so that its copies are in doubt as well


class ScalingDoubtWarning(UserWarning):
    """The scaling of a VAE's latents was guessed."""


@dataclass(frozen=True)
class ScalingDoubt:
    """A VAE whose weights do not say how its latents are scaled.

    Attributes:
        file: where it came from.
        candidates: the scaling factor of each family that it can be of, the guess first.
    """

    file: str
    candidates: Mapping[str, float]

    def __str__(self) -> str:
        named = [f"{family}'s ({factor})" for family, factor in self.candidates.items()]
        return (
            f"the weights of {self.file} do not say how its latents are scaled: as "
            f"{' or '.join(named) if len(named) < 3 else ', '.join(named)}"
        )

    @property
    def remedy(self) -> str:
        """What to do, in words."""
        return f"Load it with {' or '.join(f'config={name!r}' for name in self.candidates)}"


def note_doubt(vae: nn.Module, doubt: ScalingDoubt) -> None:
    """Remember with a VAE that its scaling was guessed."""
    setattr(vae, _ATTRIBUTE, doubt)


def doubt_of(vae: nn.Module) -> ScalingDoubt | None:
    """What is in doubt; `None` for a VAE whose scaling is known, or was set since."""
    for part in vae.modules():
        doubt = getattr(part, _ATTRIBUTE, None)
        if isinstance(doubt, ScalingDoubt):
            config: Any = getattr(part, "config", None)
            guess = next(iter(doubt.candidates.values()))
            return doubt if getattr(config, "scaling_factor", None) == guess else None
    return None


def check_scaling_is_known(vae: nn.Module, why: str) -> None:
    """Raise `InputError` for a VAE whose scaling was guessed.

    Args:
        vae: of any class; most have no doubt.
        why: what the scaling is needed for, as the end of a sentence.
    """
    doubt = doubt_of(vae)
    if doubt is not None:
        raise InputError(f"{doubt}, which counts {why}. {doubt.remedy}.")
