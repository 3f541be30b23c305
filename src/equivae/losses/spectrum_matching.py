"""Encoder spectrum matching: the latent's spectrum against that of the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from equivae.errors import InputError
from equivae.losses.decoding import Contribution, Decoding
from equivae.losses.precision import in_float32
from equivae.losses.spectra import cosine_power, radii
from equivae.losses.terms import Term, TermContext
from equivae.options import Range, at_least, within

__all__ = ["EncoderSpectrumLoss", "radial_profile"]

_EPSILON = 1e-8
_BLUR, _SIGMA, _SHARP = 7, 1.2, 32  # a grid of 32 cells gets the image without a blur


class EncoderSpectrumLoss(Term):
    r"""The radial spectrum `p` of the image against the spectrum `q` of its latent.

    .. math:: L = \sum_k p_k \log (p_k / q_k)

    The image is brought to the latent's size (blurred by 7x7 with a sigma of 1.2, unless that is 32; then
    bicubic). Both give the mean power `s_k` of their DCT over `bins` rings of frequency, averaged over
    channels, without the constant; `p_k` and `q_k` are the shares of `log(1 + s_k)`. The image's ring `k`
    counts `k^delta` times, which asks for a flatter spectrum. In nats. Source: Spectrum Matching's ESM
    (arXiv 2603.14645; weight .01).

    Args:
        bins: rings of frequency.
        delta: of the flattening.

    ```python
    import torch

    from equivae.losses.spectrum_matching import radial_profile

    profile = radial_profile(torch.randn(2, 4, 32, 32), bins=16)
    assert profile.shape == (2, 16)
    ```
    """

    name: ClassVar[str] = "esm"
    needs_grid: ClassVar[bool] = True
    only_latents: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, Range]] = {"bins": at_least(2, 256), "delta": within(0, 4)}

    def __init__(self, *, bins: int = 16, delta: float = 0.0) -> None:
        super().__init__()
        self.check_options({"bins": bins, "delta": delta})
        self.bins, self.delta = bins, delta

    def forward(self, decoding: Decoding) -> list[Contribution]:
        from kornia.filters import gaussian_blur2d

        latents = decoding.latents
        size = latents.shape[-2:]
        images = decoding.images.float()
        if size[0] != _SHARP:
            with in_float32(images):
                images = gaussian_blur2d(
                    images, (_BLUR, _BLUR), (_SIGMA, _SIGMA), border_type="constant"
                )
        images = F.interpolate(images, size=size, mode="bicubic", align_corners=False)
        wanted = radial_profile(images, self.bins)
        ring = torch.arange(1, self.bins + 1, device=wanted.device)
        wanted = _shares(wanted * ring**self.delta)
        given = _shares(radial_profile(latents, self.bins))
        value = (wanted * ((wanted + _EPSILON).log() - (given + _EPSILON).log())).sum(1).mean()
        return [Contribution(self.name, value, 1.0)]

    def check_run(self, context: TermContext) -> None:
        super().check_run(context)
        if context.example.ndim != 4:
            raise InputError(f"the term {self.name!r} is for images; leave it out.")


def radial_profile(grid: Tensor, bins: int) -> Tensor:
    """Mean power by ring of frequency of `(B, C, H, W)`, over the channels too, the constant as nought."""
    power = cosine_power(grid).mean(1)
    keep = torch.ones_like(power[0])
    keep[0, 0] = 0
    place = radii(*power.shape[-2:], device=power.device).mul(bins).long().clamp_max(bins - 1)
    sums = power.new_zeros(len(power), bins)
    sums = sums.index_add(1, place.flatten(), (power * keep).flatten(1))
    counts = torch.bincount(place.flatten(), minlength=bins).clamp_min(1)
    return sums / counts


def _shares(profile: Tensor) -> Tensor:
    logs = (profile + _EPSILON).log1p()
    return logs / (logs.sum(1, keepdim=True) + _EPSILON)
