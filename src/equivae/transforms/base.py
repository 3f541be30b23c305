"""What every transform is: a named pair of a pixel op and a latent op."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["ComposedTransform", "Transform"]


class Transform(ABC):
    r"""A named pair of a pixel op `T` and a latent op `ρ`.

    A VAE `(E, D)` is equivariant under the pair when

    .. math:: D(\rho(E(x))) = T(x) \quad\text{(decoder side)}, \qquad E(T(x)) = \rho(E(x))
              \quad\text{(encoder side)}

    for every image `x`. A subclass gives the two ops and, if there is one, the inverse. Both ops act on
    the last two axes, keep dtype and device, let gradients through, and treat every sample of a batch
    alike.

    Attributes:
        name: the registered name, or a composed one such as `"rot90@hflip"`.
        swaps_axes: whether height and width are exchanged, as a quarter turn does.

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
        """Where `T(x)` is determined by `x`: a bool tensor `(H', W')` that broadcasts against `T(x)`.

        `None`, the default, means everywhere. Losses and metrics look only inside the mask.
        """
        return None

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        """A transform with all parameters fixed. A deterministic transform returns itself."""
        return self

    def __matmul__(self, other: Transform) -> Transform:
        """`a @ b` applies `b` first, then `a`, on both sides."""
        if not isinstance(other, Transform):
            return NotImplemented
        return ComposedTransform(self, other)

    def __repr__(self) -> str:
        return f"<equivae transform {self.name or type(self).__name__}>"


class ComposedTransform(Transform):
    """`outer @ inner`: `inner` first. The inverse is the inverses in the opposite order."""

    def __init__(self, outer: Transform, inner: Transform) -> None:
        self.outer, self.inner = outer, inner
        self.name = f"{outer.name}@{inner.name}"
        self.swaps_axes = outer.swaps_axes != inner.swaps_axes

    def pixel(self, x: Tensor) -> Tensor:
        return self.outer.pixel(self.inner.pixel(x))

    def latent(self, z: Tensor) -> Tensor:
        return self.outer.latent(self.inner.latent(z))

    @property
    def inverse(self) -> Transform:
        return self.inner.inverse @ self.outer.inverse

    def mask(self, x: Tensor) -> Tensor | None:
        moved = self.inner.pixel(x)
        inner, outer = self.inner.mask(x), self.outer.mask(moved)
        if inner is None:
            return outer
        # What was undetermined after the inner op moves with the outer one; interpolation may mix it
        # with its neighbours. So what counts is what the undetermined places have no influence on.
        whole = torch.ones_like(moved)
        lost = (self.outer.pixel(whole * inner) - self.outer.pixel(whole)).abs() > 1e-4
        carried = ~lost.reshape(-1, *lost.shape[-2:]).any(0)
        return carried if outer is None else carried & outer

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> Transform:
        inner = self.inner.draw(batch_size, generator)
        return self.outer.draw(batch_size, generator) @ inner
