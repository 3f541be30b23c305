"""The latent op as caches need it: one thing that moves a batch of latents, with a name and a signature."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equivae.caches.space import LatentSpace
from equivae.errors import InputError
from equivae.latent_scaling import LatentScaling
from equivae.transforms import Transform, get_transform, list_transforms

__all__ = ["CacheOp", "find_op"]


@dataclass(frozen=True)
class CacheOp:
    """A latent op on latents as they lie in a cache.

    Attributes:
        move: the name of the transform that it stands for, such as `"hflip"`.
        transform: its latent op, on unscaled latents.
        channels: of the latents that it takes; `None` for a plain one.
        axes: of the grid that it takes; `None` for any.
        space: what its file says of its VAE.
        scaling: how the cache scales its latents; `None` for not at all.
    """

    move: str
    transform: Transform
    channels: int | None = None
    axes: int | None = None
    space: LatentSpace = field(default_factory=LatentSpace)
    scaling: LatentScaling | None = None

    @cached_property
    def _moved(self) -> Callable[[Tensor], Tensor]:
        """The latent op; that of a convolution in the form that is computed fastest."""
        operator: Any = getattr(self.transform, "operator", None)
        if getattr(operator, "kind", None) != "conv" or self.axes != 2:
            return self.transform.latent
        # The seam to the operators.
        from equivae.operators.tiling import TiledConv

        return _Convolution(self.transform, TiledConv(operator))

    @property
    def plain(self) -> Transform:
        """The plain latent op."""
        return get_transform(self.move)

    def on_scaled(self, scaling: LatentScaling | None) -> CacheOp:
        """The same op on latents that are scaled so."""
        return replace(self, scaling=scaling)

    @cached_property
    def signature(self) -> str:
        """Of everything that the result depends on."""
        digest = hashlib.sha256(f"{self.move} {self.scaling}".encode())
        for part in _operators(self.transform):
            digest.update(json.dumps(part.config(), sort_keys=True).encode())
            for name, value in sorted(part.state_dict().items()):
                digest.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def check_vae(self, vae: nn.Module) -> None:
        """`InputError` when its file says that it was fitted for another VAE."""
        if getattr(self.transform, "vae", None) is not None:
            self.transform.check_vae(vae, strict=True)  # type: ignore[attr-defined]

    def check(self, latents: Tensor, where: Path) -> None:
        """`InputError` unless it takes a batch `(B, c, *grid)`."""
        if self.channels is not None and latents.shape[1] != self.channels:
            raise InputError(
                f"the latent op was fitted on {self.channels} channels, the latents of {where} have "
                f"{latents.shape[1]} (shape {tuple(latents.shape[1:])}); pass an op of the VAE that made "
                "them."
            )

    def __call__(self, latents: Tensor) -> Tensor:
        """Move a batch `(B, c, *grid)`; a video's frames one by one, if the op is one of images."""
        z = latents.float()
        if self.scaling is not None:
            z = self.scaling.unscale(z)
        frames = z.ndim == 5 and self.axes == 2
        if frames:
            z = z.transpose(1, 2)
            shape, z = z.shape[:2], z.flatten(0, 1)
        with torch.no_grad():
            z = self._moved(z)
        if frames:
            z = z.reshape(*shape, *z.shape[1:]).transpose(1, 2)
        if self.scaling is not None:
            z = self.scaling.scale(z)
        return z.to(latents.dtype).contiguous()


@dataclass(frozen=True)
class _Convolution:
    """The latent op of a fitted transform, its convolution made faster where that is known to be."""

    transform: Any
    tiled: Callable[[Tensor], Tensor]

    def __call__(self, z: Tensor) -> Tensor:
        if z.ndim != 4 or z.device.type != "cpu":
            moved: Tensor = self.transform.latent(z)
            return moved
        return self.tiled(self.transform.base.latent(z))


def find_op(op: str | Path | Transform, move: str | None = None) -> CacheOp:
    """The op from a folder that `FittedTransform.save` wrote, the hub, a transform or a plain one's name.

    Args:
        op: where it is, or what it is.
        move: the transform that it has to be for; its inverse is taken when that is the one.

    Raises `InputError` when there is none, or it is for another transform.
    """
    if isinstance(op, Transform):
        found = op
    elif str(op) in list_transforms() and not Path(op).exists():
        found = get_transform(str(op))
    else:
        found = _load_op(op)
    made = _as_cache_op(found)
    if move is None or made.move == move:
        return made
    if move not in list_transforms():
        get_transform(move)  # says what is known
    try:
        inverse = _as_cache_op(found.inverse)
    except NotImplementedError:
        inverse = made
    if inverse.move != move:
        raise InputError(
            f"the latent op {found.name!r} is for {made.move!r}, not for {move!r}; fit one with `equivae "
            "fit "
            f"--transforms {move}`."
        )
    return inverse


def _load_op(op: str | Path) -> Transform:
    """The seam to the operators."""
    from equivae.operators import load_latent_op

    return load_latent_op(op)


def _as_cache_op(transform: Transform) -> CacheOp:
    operator: Any = getattr(transform, "operator", None)
    base: Transform = getattr(transform, "base", transform)
    channels = getattr(operator, "channels", None)
    axes = None if operator is None else len(operator.kernel)
    return CacheOp(base.name, transform, channels, axes, LatentSpace.of_op(transform))


def _operators(transform: Transform) -> Iterator[Any]:
    for part in vars(transform).values():
        if isinstance(part, nn.Module) and hasattr(part, "config"):
            yield part
        elif isinstance(part, Transform):
            yield from _operators(part)
