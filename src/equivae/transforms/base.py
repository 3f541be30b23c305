"""What every transform is: a named pair of a pixel op and a latent op; how pairs compose and respond."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from equivae.transforms.equality import hashable, same
from equivae.transforms.spelling import spell, spell_product

if TYPE_CHECKING:
    import torch

__all__ = [
    "ChannelResponse",
    "ComposedTransform",
    "RepresentedTransform",
    "Transform",
    "mask_like",
    "mask_of_cells",
]


class Transform(ABC):
    r"""A named pair of a pixel op `T` and a latent op `ρ`.

    A VAE `(E, D)` is equivariant under the pair when

    .. math:: D(\rho(E(x))) = T(x) \quad\text{(decoder side)}, \qquad E(T(x)) = \rho(E(x))
              \quad\text{(encoder side)}

    for every image `x`. A subclass gives the two ops and, if there is one, the inverse. Both ops act on
    the last two axes, keep dtype and device, let gradients through, and treat every sample of a batch
    alike; `equivae.testing.check_transform` verifies it.

    Two transforms are equal when they do the same: when they are of one class and all their attributes
    but the name are equal. Where names are keys, `resolve_transforms` refuses unequal ones of one name.

    Attributes:
        name: the registered name, or a composed one such as `"rot90@hflip"`.
        swaps_axes: whether height and width are exchanged, as a quarter turn does.
        exact: whether values are only moved, never interpolated. The round trip through the inverse
            of an exact transform costs nothing; that of a resampled one costs sharpness.
        linear: whether both ops claim to keep sums and multiples, `T(a x + b y) = a T(x) + b T(y)`.
        mixes_samples: whether a sample's result depends on the other samples, as blending's does.
        block: what the sides have to be multiples of, in pixels and in cells, for ops that mix the
            values of a block of that side.
        layouts: what it acts on: `"image"` `(B, C, H, W)`, `"video"` `(B, C, T, H, W)`, `"audio"`
            `(B, C, T)`.

    ```python
    import torch

    import equivae


    class Negative(equivae.Transform):
        name = "negative"

        def pixel(self, x):
            return -x

        def latent(self, z):
            return -z

        @property
        def inverse(self):
            return self


    x = torch.rand(1, 3, 8, 8)
    assert Negative().inverse.pixel(Negative().pixel(x)).equal(x)
    ```
    """

    name: str = ""
    swaps_axes: bool = False
    exact: bool = True
    linear: bool = False
    mixes_samples: bool = False
    block: int = 1
    layouts: tuple[str, ...] = ("image",)

    @abstractmethod
    def pixel(self, x: Tensor) -> Tensor:
        """`T(x)` for images `(..., H, W)`."""

    @abstractmethod
    def latent(self, z: Tensor) -> Tensor:
        """`ρ(z)` for latents `(..., h, w)`, as `encode` returns them, before any scaling factor."""

    @property
    def inverse(self) -> Transform:
        """The transform that undoes this one on both sides; `NotImplementedError` if there is none."""
        raise NotImplementedError(
            f"transform {self.name!r} has no inverse; define the property `inverse` to measure its "
            "round trip"
        )

    def mask(self, x: Tensor) -> Tensor | None:
        """Where `T(x)` is determined by `x`, on the pixel grid and on the latent grid.

        A bool tensor `(H', W')`, or `(B, 1, H', W')` when it differs between samples; both broadcast
        against images `T(x)`, and hold for every frame of a video. `None`, the default, means
        everywhere. Losses and metrics look only inside.
        """
        return None

    def carry_mask(self, x: Tensor, valid: Tensor) -> Tensor:
        """Where `T(x)` is determined by the pixels of `x` at which `valid` holds.

        Args:
            x: images `(B, C, H, W)`.
            valid: a bool tensor that broadcasts against `x`.

        Returns a bool tensor as `mask` does.
        """
        # NaN survives every move and every weighted sum, so it marks whatever a pixel reaches.
        marked = x.masked_fill(~mask_like(valid, x), float("nan"))
        reached = ~self.pixel(marked).isnan().any(1, keepdim=True)
        if reached.ndim == 5:
            reached = reached.all(2)
        own = self.mask(x)
        return reached if own is None else reached & own

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        """A transform with all parameters fixed, for a batch of that many samples.

        A deterministic transform returns itself. Parameters may differ between the samples, so that a
        drawn transform belongs to the very rows that it was drawn for: select the rows first, then
        draw.

        Args:
            batch_size: `B` of the tensors that the result will be applied to.
            generator: a CPU generator, which makes the draw repeatable.
        """
        return self

    def at_step(self, step: int) -> Transform:
        """This transform as it is in a step of a run, counted from 0: one that takes turns takes that one.

        All others return themselves. The objective of a run calls it, so that a run goes on with the turn
        that it stopped at.
        """
        return self

    def at_factor(self, factor: int, time_factor: int | None = None) -> Transform:
        """This transform placed on a VAE whose latent cells span `factor` pixels along an axis.

        It matters where latent cells count: the size of a crop, the step of a shift, the mask. Such a
        transform has no factor until it is placed, once: by hand with this or with
        `equivae.Autoencoder(vae).place(t)`; losses, metrics and fits do it with that of the VAE. The
        others return themselves. The name stays the same.

        Args:
            factor: `H / h`.
            time_factor: how many frames, or audio samples, one latent step spans.

        Raises `InputError` for a transform that is placed at another factor.

        ```python
        import torch

        import equivae

        t = equivae.get_transform("shift", y=1, x=0).at_factor(16)
        x = torch.rand(1, 3, 64, 64)
        assert t.pixel(x).equal(x.roll(16, -2))
        ```
        """
        return self

    def with_representation(self, response: ChannelResponse, name: str | None = None) -> Transform:
        """A new transform whose latent op is this one's followed by a channel response.

        Args:
            response: `SignFlips((0, 1))`, `ChannelPermutation((1, 0, 2, 3))`, or
                `ModuleResponse(module)`.
            name: of the new transform; otherwise both names joined.

        ```python
        import torch

        import equivae
        from equivae.transforms import SignFlips

        t = equivae.get_transform("hflip").with_representation(SignFlips((0,)))
        z = torch.randn(1, 4, 8, 8)
        assert t.latent(z)[:, 0].equal(-z.flip(-1)[:, 0])
        assert t.inverse.latent(t.latent(z)).equal(z)
        ```
        """
        return RepresentedTransform(self, response, name)

    def __matmul__(self, other: Transform) -> Transform:
        """`a @ b` applies `b` first, then `a`, on both sides."""
        if not isinstance(other, Transform):
            return NotImplemented
        return ComposedTransform(self, other)

    def _does(self) -> Mapping[str, Any]:
        """What tells it from the others of its class: its parameters, not how it is displayed."""
        return {key: value for key, value in vars(self).items() if key != "name"}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Transform):
            return NotImplemented
        alike = type(self) is type(other)
        return self is other or (alike and same(self._does(), other._does()))

    def __hash__(self) -> int:
        return hash((type(self), hashable(self._does())))

    def __repr__(self) -> str:
        return f"<equivae transform {self.name or type(self).__name__}>"


class ComposedTransform(Transform):
    """`outer @ inner`: `inner` first. The inverse is the inverses in the opposite order."""

    def __init__(self, outer: Transform, inner: Transform, name: str | None = None) -> None:
        self.outer, self.inner = outer, inner
        self.name = name or spell_product(outer.name, inner.name)
        self.swaps_axes = outer.swaps_axes != inner.swaps_axes
        self.exact = outer.exact and inner.exact
        self.mixes_samples = outer.mixes_samples or inner.mixes_samples
        self.block = math.lcm(outer.block, inner.block)
        self.layouts = tuple(layout for layout in inner.layouts if layout in outer.layouts)

    def pixel(self, x: Tensor) -> Tensor:
        return self.outer.pixel(self.inner.pixel(x))

    def latent(self, z: Tensor) -> Tensor:
        return self.outer.latent(self.inner.latent(z))

    @property
    def inverse(self) -> Transform:
        return self.inner.inverse @ self.outer.inverse

    def mask(self, x: Tensor) -> Tensor | None:
        moved, inner = self.inner.pixel(x), self.inner.mask(x)
        return self.outer.mask(moved) if inner is None else self.outer.carry_mask(moved, inner)

    def carry_mask(self, x: Tensor, valid: Tensor) -> Tensor:
        return self.outer.carry_mask(self.inner.pixel(x), self.inner.carry_mask(x, valid))

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        inner = self.inner.draw(batch_size, generator)
        outer = self.outer.draw(batch_size, generator)
        if inner is self.inner and outer is self.outer:
            return self
        return ComposedTransform(outer, inner, self.name)

    def at_step(self, step: int) -> Transform:
        inner, outer = self.inner.at_step(step), self.outer.at_step(step)
        if inner is self.inner and outer is self.outer:
            return self
        return ComposedTransform(outer, inner, self.name)

    def at_factor(self, factor: int, time_factor: int | None = None) -> Transform:
        inner = self.inner.at_factor(factor, time_factor)
        outer = self.outer.at_factor(factor, time_factor)
        if inner is self.inner and outer is self.outer:
            return self
        return ComposedTransform(outer, inner, self.name)

    def _does(self) -> Mapping[str, Any]:
        return {"parts": self._parts()}

    def _parts(self) -> list[Transform]:
        """The factors, outermost first, however they are bracketed; those whose product is one, as one."""
        parts: list[Transform] = []
        for side in (self.outer, self.inner):
            for part in side._parts() if isinstance(side, ComposedTransform) else [side]:
                product = parts[-1] @ part if parts else None
                if product is None or isinstance(product, ComposedTransform):
                    parts.append(part)
                else:
                    parts[-1] = product
        return parts


class ChannelResponse(ABC):
    """What happens to the channels of a latent `(B, c, ...)` after the grid has moved.

    Attributes:
        pointwise: whether every cell is treated alike and on its own, so that the response commutes
            with every move of the grid.
        layouts: what it acts on, see `Transform`.
    """

    pointwise: bool = True
    layouts: tuple[str, ...] = ("image", "video", "audio")

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor: ...

    @property
    def spelled(self) -> str:
        """As it stands in the name of a transform: `"SignFlips(channels=(0,1))"`."""
        known: dict[str, Any] = vars(self) if dataclasses.is_dataclass(self) else {}
        return spell(type(self).__name__, **known)

    @property
    def inverse(self) -> ChannelResponse:
        """The response that undoes this one; `NotImplementedError` if there is none."""
        raise NotImplementedError(f"channel response {self} has no inverse")


class RepresentedTransform(Transform):
    """A transform whose latent op moves the cells, after which the channels respond.

    Built by `Transform.with_representation`. Composition applies the pairs in turn; the inverse undoes
    the response first, then the move of the grid.

    Args:
        grid: the transform whose pixel op stays and whose latent op moves the grid.
        response: the channel response.
        name: of the pair; otherwise the grid's and the response's joined.
    """

    def __init__(self, grid: Transform, response: ChannelResponse, name: str | None = None) -> None:
        self.grid, self.response = grid, response
        self.name = name or f"{grid.name}+{response.spelled}"
        self.swaps_axes, self.exact = grid.swaps_axes, grid.exact
        self.mixes_samples, self.block = grid.mixes_samples, grid.block
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

    def at_step(self, step: int) -> Transform:
        grid = self.grid.at_step(step)
        return self if grid is self.grid else RepresentedTransform(grid, self.response, self.name)

    def at_factor(self, factor: int, time_factor: int | None = None) -> Transform:
        grid = self.grid.at_factor(factor, time_factor)
        return self if grid is self.grid else RepresentedTransform(grid, self.response, self.name)


class _Identity(Transform):
    name = "identity"
    layouts = ("image", "video", "audio")

    def pixel(self, x: Tensor) -> Tensor:
        return x

    def latent(self, z: Tensor) -> Tensor:
        return z


_IDENTITY = _Identity()


def mask_like(mask: Tensor, x: Tensor) -> Tensor:
    """A mask `(H, W)` or `(B, 1, H, W)` as it broadcasts against images or, for every frame, videos `x`."""
    return mask.unsqueeze(2) if x.ndim == 5 and mask.ndim == 4 else mask


def mask_of_cells(mask: Tensor, size: torch.Size) -> Tensor:
    """The latent cells all of whose pixels are valid.

    Args:
        mask: `(H, W)` or `(B, 1, H, W)`, as `Transform.mask` gives it.
        size: height and width of the latent, `z.shape[-2:]`.

    Returns a bool tensor `(1, 1, h, w)` or `(B, 1, h, w)`.
    """
    pixels = mask.float().reshape(-1, 1, *mask.shape[-2:])
    return F.adaptive_avg_pool2d(pixels, (size[0], size[1])) > 1 - 1e-6
