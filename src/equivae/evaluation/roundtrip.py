"""The trips that all measurements are about: through the VAE, and through it with a moved latent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder, measuring
from equivae.autoencoder.at_once import decode_in_calls, encode_in_calls
from equivae.errors import InputError
from equivae.evaluation.quality import mean_inside
from equivae.transforms import Transform
from equivae.units import psnr, unit

__all__ = [
    "Reconstruction",
    "RoundTrip",
    "fix_draws",
    "mean_reconstruction_psnr",
    "reconstruct",
    "reencode",
    "seed_of",
    "travel",
]


@dataclass(frozen=True)
class Reconstruction:
    """A batch and what the VAE makes of it: `x`, `z = E(x)`, `D(z)`, and both images in [0, 1].

    `seconds` is the time of the decoder for one image.
    """

    x: Tensor
    z: Tensor
    output: Tensor
    plain: Tensor
    seen: Tensor
    seconds: float = 0.0

    @property
    def error(self) -> Tensor:
        """`MSE(D(E(x)), x)` of every image, `(B,)`."""
        return mean_inside((self.seen - self.plain).square(), None)

    def rows(self, start: int, stop: int) -> Reconstruction:
        parts = (self.x, self.z, self.output, self.plain, self.seen)
        x, z, output, plain, seen = (part[start:stop] for part in parts)
        return Reconstruction(x, z, output, plain, seen, self.seconds)


@dataclass(frozen=True)
class RoundTrip:
    """A batch that was moved in the latent.

    Attributes:
        transform: with everything fixed.
        turned: `T(x)`.
        latent: `ρ(E(x))`.
        decoded: `D(ρ(E(x)))`.
        back: that moved back, in [0, 1], `None` without an inverse.
        seen: what is compared, in [0, 1]: `back` for an exact transform, else the decode.
        target: with what: the original, or the moved original.
        mask: where.
        reconstruction: the reconstruction beside it, moved likewise, in [0, 1].
        reconstruction_mse: its error inside that mask, `(B,)`.
        seconds: time of the latent op for one image.
    """

    transform: Transform
    turned: Tensor
    latent: Tensor
    decoded: Tensor
    back: Tensor | None
    seen: Tensor
    target: Tensor
    mask: Tensor | None
    reconstruction: Tensor
    reconstruction_mse: Tensor
    seconds: float = 0.0

    def compared(self, decoded: Tensor) -> Tensor:
        """Another decode in the place of this one, ready to be compared with `target`."""
        if self.seen is self.back:
            return unit(self.transform.inverse.pixel(decoded))
        return unit(decoded)


def reconstruct(vae: Autoencoder, x: Tensor) -> Reconstruction:
    z = encode_in_calls(vae, x)
    began = _now(x)
    output = decode_in_calls(vae, z, x[0, 0].numel())
    seconds = (_now(x) - began) / len(x)
    if output.shape != x.shape:
        raise InputError(
            f"{type(vae.module).__name__} decodes the latent of {tuple(x.shape)} to {tuple(output.shape)}; "
            "give it a size that it keeps."
        )
    return Reconstruction(x, z, output, unit(x), unit(output), seconds)


def mean_reconstruction_psnr(vae: Autoencoder, batches: Sequence[Tensor]) -> float:
    """PSNR in dB of the mean reconstruction error over batches of images `(B, C, ..., H, W)`."""
    with measuring(vae.module):
        errors = torch.cat([reconstruct(vae, batch).error for batch in batches])
    return psnr(float(errors.mean()))


def fix_draws(
    vae: Autoencoder, transform: Transform, batch: Reconstruction, seed: int
) -> tuple[Transform, bool]:
    """The transform at the VAE's factor with its parameters drawn, and whether anything was drawn."""
    at = vae.place(transform).at_step(seed)
    drawn = at.draw(batch.x.shape[0], torch.Generator().manual_seed(seed))
    return drawn, drawn is not at


def seed_of(seed: int, index: int) -> int:
    """The seed of one image's draw."""
    return seed * 1_000_003 + index


def travel(vae: Autoencoder, batch: Reconstruction, transform: Transform, name: str) -> RoundTrip:
    """Move the latent by a transform whose parameters are fixed, decode, and move back.

    Raises `InputError` when its two ops disagree about the shape.
    """
    turned = transform.pixel(batch.x)
    began = _now(batch.z)
    latent = transform.latent(batch.z)
    seconds = (_now(batch.z) - began) / len(batch.z)
    decoded = decode_in_calls(vae, latent, turned[0, 0].numel())
    if decoded.shape != turned.shape:
        raise InputError(
            f"transform {name!r} moves pixels to {tuple(turned.shape[2:])} but its latent "
            f"decodes to {tuple(decoded.shape[2:])}: its two ops disagree about the shape."
        )
    back: Tensor | None = None
    try:
        inverse = transform.inverse
    except NotImplementedError:
        pass
    else:
        back = unit(inverse.pixel(decoded))
    if transform.exact and back is not None:
        seen, target = back, batch.plain
        mask = (transform.inverse @ transform).mask(batch.x)
        reconstruction = batch.seen
    else:
        seen, target, mask = unit(decoded), unit(turned), transform.mask(batch.x)
        reconstruction = unit(transform.pixel(batch.output))
    error = mean_inside((reconstruction - target).square(), mask)
    return RoundTrip(
        transform,
        turned,
        latent,
        decoded,
        back,
        seen,
        target,
        mask,
        reconstruction,
        error,
        seconds,
    )


def reencode(vae: Autoencoder, batch: Reconstruction, transform: Transform) -> tuple[Tensor, float]:
    """`E(T(D(E(x))))`, the latent moved by way of the picture, and the seconds from latent to latent.

    What can be done without a latent op, its yardstick. The picture has colours in [-1, 1], as a saved one.
    The seconds are those of one image, the decoder's among them.
    """
    began = _now(batch.z)
    latent = encode_in_calls(vae, transform.pixel(batch.output.clamp(-1, 1)))
    return latent, batch.seconds + (_now(batch.z) - began) / len(batch.z)


def _now(on: Tensor) -> float:
    """The time in seconds, when everything on the tensor's device is done."""
    if on.is_cuda:
        torch.cuda.synchronize(on.device)
    return time.perf_counter()
