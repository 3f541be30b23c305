"""Representations: how the latent channels respond when the grid moves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equivae.errors import InputError
from equivae.transforms.base import ChannelResponse, RepresentedTransform, Transform
from equivae.transforms.checks import is_whole
from equivae.transforms.spelling import spell

__all__ = [
    "ChannelPermutation",
    "ChannelResponse",
    "ModuleResponse",
    "RepresentedTransform",
    "SignFlips",
    "signed_flip",
]


@dataclass(frozen=True)
class SignFlips(ChannelResponse):
    """Some channels change their sign (AuraEquiVAE's representation: two channels per axis).

    Args:
        channels: which; negative ones count from the end.
    """

    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if not all(map(is_whole, self.channels)):
            raise InputError(f"channels must be whole numbers, got {self.channels!r}.")

    def __call__(self, z: Tensor) -> Tensor:
        count = z.shape[1]
        _check_channels(self.channels, count)
        flipped = {channel % count for channel in self.channels}
        signs = [-1.0 if channel in flipped else 1.0 for channel in range(count)]
        return z * z.new_tensor(signs).view(-1, *[1] * (z.ndim - 2))

    @property
    def inverse(self) -> SignFlips:
        return self


@dataclass(frozen=True)
class ChannelPermutation(ChannelResponse):
    """The channels change places: channel `i` of the result is channel `order[i]`.

    Args:
        order: a permutation of all channels.
    """

    order: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", tuple(self.order))
        if sorted(self.order) != list(range(len(self.order))):
            raise InputError(f"order must be a permutation of 0 to {len(self.order) - 1}.")

    def __call__(self, z: Tensor) -> Tensor:
        if z.shape[1] != len(self.order):
            raise InputError(
                f"the permutation is of {len(self.order)} channels, the latent has {z.shape[1]}."
            )
        return z[:, list(self.order)]

    @property
    def inverse(self) -> ChannelPermutation:
        return ChannelPermutation(tuple(sorted(range(len(self.order)), key=self.order.__getitem__)))


@dataclass(frozen=True)
class ModuleResponse(ChannelResponse):
    """Any `nn.Module` from latents to latents of the same shape: a 1x1 convolution, a fitted one, a
    small network.

    Args:
        module: the module. Its parameters are trained by whoever has it in an optimiser; they stay
            where they are, and follow the latent's dtype and device for the call.
        inverse_module: the module that undoes it, if there is one.
        pointwise: whether it treats every cell alike and on its own, as a 1x1 convolution does.
    """

    module: nn.Module
    inverse_module: nn.Module | None = None
    pointwise: bool = False
    layouts = ("image",)

    @property
    def spelled(self) -> str:
        return type(self.module).__name__

    def __call__(self, z: Tensor) -> Tensor:
        first = next(self.module.parameters(), z)
        if first.device == z.device and first.dtype == z.dtype:
            result: Tensor = self.module(z)
            return result
        tensors = {
            name: value.to(z) if value.is_floating_point() else value.to(z.device)
            for name, value in self.module.state_dict(keep_vars=True).items()
        }
        return torch.func.functional_call(self.module, tensors, (z,))  # type: ignore[no-any-return]

    @property
    def inverse(self) -> ModuleResponse:
        if self.inverse_module is None:
            return super().inverse  # type: ignore[return-value]
        return ModuleResponse(self.inverse_module, self.module, self.pointwise)


def signed_flip(grid: Transform, name: str, channels: tuple[int, ...]) -> Transform:
    """AuraEquiVAE's pair: a flip of the grid with sign flips on some channels."""
    shown = spell(name, channels=tuple(channels))
    return grid.with_representation(SignFlips(tuple(channels)), shown)


def _check_channels(channels: tuple[int, ...], count: int) -> None:
    wrong = [channel for channel in channels if not -count <= channel < count]
    if wrong:
        raise InputError(
            f"channel {wrong[0]} cannot change its sign: the latent has {count} channels; name others "
            "with `channels=`."
        )
