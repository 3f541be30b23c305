"""A VAE whose encoder and decoder are exactly equivariant under a flip, around any VAE of ComfyUI.

The encoder takes one half of the picture from `E(x)` and the other from `E(Tx)`, moved back: with `F` the
first half, `E'(x) = E(x)` on `F` and `S E(Tx)` elsewhere, so that `E'(Tx) = S E'(x)` whatever `E` is. The
decoder goes the other way, each half decoded the way up that the VAE knows, with a fitted latent op as
context beyond the middle. (Stabiliser-invariant maps, one per orbit: Sannai et al., arXiv 2409.16922.)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .latent_op import LatentOp
from .moves import MOVES, Lattice

__all__ = ["GROUPS", "SymmetrizedVAE"]

GROUPS = ("hflip", "vflip", "rot180")


class SymmetrizedVAE:
    """A VAE object for ComfyUI's nodes: `encode`, `decode` and their tiled forms are equivariant.

    Args:
        vae: the VAE, which stays as it is.
        op: a latent op for one of `GROUPS`; its kernel makes the context beyond the middle.
        seam: width in pixels of the ramp between the halves of the decoded picture.

    Everything else is the VAE's own. Encoding and decoding cost twice as much.
    """

    def __init__(self, vae: Any, op: LatentOp, seam: int = 16) -> None:
        if op.name not in GROUPS:
            raise ValueError(
                f"A VAE is symmetrized under {', '.join(GROUPS)}; the latent op is for {op.name}."
            )
        self._vae, self._op, self._seam = vae, op, seam

    def __getattr__(self, name: str) -> Any:
        if name == "_vae":  # not made yet, while it is copied
            raise AttributeError(name)
        return getattr(self._vae, name)

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of images `(B, H, W, C)` in [0, 1]."""
        return self._encode(pixels, self._vae.encode)

    def encode_tiled(self, pixels: Tensor, *args: Any, **options: Any) -> Tensor:
        """The same, by tiles."""
        return self._encode(pixels, lambda x: self._vae.encode_tiled(x, *args, **options))

    def decode(self, samples: Tensor, *args: Any, **options: Any) -> Tensor:
        """Images of latents `(B, c, h, w)`."""
        return self._decode(samples, lambda z: self._vae.decode(z, *args, **options))

    def decode_tiled(self, samples: Tensor, *args: Any, **options: Any) -> Tensor:
        """The same, by tiles."""
        return self._decode(samples, lambda z: self._vae.decode_tiled(z, *args, **options))

    def _encode(self, pixels: Tensor, encode: Any) -> Tensor:
        crop = getattr(self._vae, "vae_encode_crop_pixels", None)
        if crop is not None:  # once, so that a crop that is off centre does not come between
            pixels = crop(pixels)
        move = MOVES[self._op.name]
        upright = encode(pixels)
        other = move(encode(_move_image(pixels, move)))
        first = _ramp(upright.shape[-2:], move, 0).to(upright)
        return first * upright + (1 - first) * other

    def _decode(self, samples: Tensor, decode: Any) -> Tensor:
        move = MOVES[self._op.name]
        upright = decode(self._with_context(samples))
        other = _move_image(decode(self._with_context(move(samples))), move)
        first = _ramp(upright.shape[-3:-1], move, self._seam).to(upright).unsqueeze(-1)
        return first * upright + (1 - first) * other

    def _with_context(self, samples: Tensor) -> Tensor:
        """The first half as it is, and what the VAE would have in the other, by the fitted op."""
        if self._op.kernel is None:
            return samples
        move = MOVES[self._op.name]  # undoes itself, so that the op's own move is taken back
        first = _ramp(samples.shape[-2:], move, 0).to(samples)
        return first * samples + (1 - first) * self._op(move(samples))


def _move_image(images: Tensor, move: Lattice) -> Tensor:
    return move(images.movedim(-1, -3)).movedim(-3, -1)


def _ramp(size: tuple[int, int], move: Lattice, width: int) -> Tensor:
    """Weights `(H, W)` with `w + Sw = 1`: one on the first half, a raised sine of that width between.

    A cell that the move leaves in its place gets one half, whatever the width.
    """
    axis = 0 if move.flips_height else 1
    side = size[axis]
    place = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    reach = max(width, 1) / 2
    line = 0.5 - 0.5 * torch.sin(place.clamp(-reach, reach) / reach * math.pi / 2)
    weights = line.view(-1, 1) if axis == 0 else line.view(1, -1)
    return weights.expand(size)
