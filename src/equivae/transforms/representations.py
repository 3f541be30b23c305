"""Representations: how the latent channels respond besides the grid move."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equivae.errors import InputError
from equivae.transforms.base import ComposedTransform, Transform
from equivae.transforms.spelling import spell

__all__ = [
    "ChannelPermutation",
    "ChannelResponse",
    "ModuleResponse",
    "RepresentedTransform",
    "SignFlips",
    "signed_flip",
]


class ChannelResponse(ABC):
    """What happens to the channels of a latent `(B, c, ...)` after the grid move.

    Attributes:
        pointwise: whether every cell is treated alike and on its own, so that the response commutes
            with every grid move.
        layouts: what it acts on, see `Transform`.
    """

    pointwise: bool = True
    layouts: tuple[str, ...] = ("image", "video", "audio")

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor: ...

    @property
    def inverse(self) -> ChannelResponse:
        """The response that undoes this one; `NotImplementedError` if there is none."""
        raise NotImplementedError(f"channel response {self} has no inverse")


@dataclass(frozen=True)
class SignFlips(ChannelResponse):
    """Some channels change their sign (AuraEquiVAE's representation: two channels per axis).

    Args:
        channels: which; negative ones count from the end.
    """

    channels: tuple[int, ...]

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


@dataclass(frozen=True, eq=False)
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


class RepresentedTransform(Transform):
    """A transform whose latent op is a grid move followed by a channel response.

    Built by `Transform.with_representation`. Composition applies the pairs in turn; the inverse undoes
    the response first, then the grid move.

    Args:
        grid: the transform whose pixel op stays and whose latent op moves the grid.
        response: the channel response.
        name: of the pair; otherwise the grid's and the response's joined.
    """

    def __init__(self, grid: Transform, response: ChannelResponse, name: str | None = None) -> None:
        self.grid, self.response = grid, response
        self.name = name or f"{grid.name}+{_response_name(response)}"
        self.swaps_axes, self.exact = grid.swaps_axes, grid.exact
        self.mixes_samples = grid.mixes_samples
        self.layouts = tuple(k for k in grid.layouts if k in response.layouts)

    def pixel(self, x: Tensor) -> Tensor:
        return self.grid.pixel(x)

    def latent(self, z: Tensor) -> Tensor:
        return self.response(self.grid.latent(z))

    @property
    def inverse(self) -> Transform:
        grid, response = self.grid.inverse, self.response.inverse
        name = self.name if grid == self.grid and response == self.response else None
        if response.pointwise:
            return RepresentedTransform(grid, response, name)
        back = RepresentedTransform(_IDENTITY, response)
        return ComposedTransform(grid, back, f"inverse({self.name})")

    def mask(self, x: Tensor) -> Tensor | None:
        return self.grid.mask(x)

    def carry_mask(self, x: Tensor, valid: Tensor) -> Tensor:
        return self.grid.carry_mask(x, valid)

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        grid = self.grid.draw(batch_size, generator)
        return self if grid is self.grid else RepresentedTransform(grid, self.response, self.name)

    def at_factor(self, factor: int, time_factor: int | None = None) -> Transform:
        grid = self.grid.at_factor(factor, time_factor)
        return RepresentedTransform(grid, self.response, self.name)


class _Identity(Transform):
    name = "identity"
    layouts = ("image", "video", "audio")

    def pixel(self, x: Tensor) -> Tensor:
        return x

    def latent(self, z: Tensor) -> Tensor:
        return z


_IDENTITY = _Identity()


def signed_flip(grid: Transform, name: str, channels: tuple[int, ...]) -> Transform:
    """AuraEquiVAE's pair: a flip of the grid with sign flips on some channels."""
    shown = spell(name, channels=tuple(channels))
    return grid.with_representation(SignFlips(tuple(channels)), shown)


def _response_name(response: ChannelResponse) -> str:
    if isinstance(response, ModuleResponse):
        return type(response.module).__name__
    if dataclasses.is_dataclass(response):
        return spell(type(response).__name__, **vars(response))
    return type(response).__name__


def _check_channels(channels: tuple[int, ...], count: int) -> None:
    wrong = [channel for channel in channels if not -count <= channel < count]
    if wrong:
        raise InputError(
            f"channel {wrong[0]} cannot change its sign: the latent has {count} channels; name others "
            "with `channels=`."
        )
