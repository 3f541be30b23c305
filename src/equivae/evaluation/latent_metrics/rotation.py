"""EQ-R: the decoder as a generator whose input is rotated, judged as StyleGAN3 is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.evaluation.latent_metrics.base import PerImage, generator_of, psnr_of_mean
from equivae.evaluation.latent_metrics.turning import MARGIN, pseudo_rotate, rotate
from equivae.evaluation.quality import mean_inside
from equivae.evaluation.roundtrip import Reconstruction

__all__ = ["EQ_R", "rotation_errors"]


def rotation_errors(vae: Autoencoder, batch: Reconstruction, seeds: list[int]) -> Tensor | None:
    """Mean squared difference of `D(R z)` and `R D(z)` inside what is known of both, over 4, `(B,)`.

    `R` rotates within the band, by an angle drawn from all for every image; `D(R z)` is limited to the band
    that `R D(z)` has. Over 4, as values in [-1, 1] have a range of 2; nothing is clamped. `None` for
    latents too small to be known anywhere.
    """
    if batch.z.ndim != 4 or min(batch.z.shape[-2:]) < 2 * MARGIN + 4:
        return None
    factor = round(batch.output.shape[-2] / batch.z.shape[-2])
    angles = [
        float(torch.rand((), generator=generator_of(seed)) * 2 - 1) * math.pi for seed in seeds
    ]
    turned = [rotate(z.float(), angle) for z, angle in zip(batch.z, angles, strict=True)]
    seen = vae.decode(torch.stack([z for z, _ in turned]).to(batch.z)).float()
    errors, masks = [], []
    for (_, cells), one, plain, angle in zip(turned, seen, batch.output, angles, strict=True):
        target, known = rotate(plain.float(), angle)
        limited, inside = pseudo_rotate(one, angle)
        pixels = cells.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
        errors.append((limited - target).square() / 4)
        masks.append((known & inside & pixels)[None])
    return mean_inside(torch.stack(errors), torch.stack(masks))


EQ_R = PerImage(
    "eq_r",
    "EQ-R of the decoder",
    "PSNR of D(R z) against R D(z) inside what is known of both, range 2 in [-1, 1]; R by any angle, within "
    "the band; of the mean error over the images",
    "Karras et al. (StyleGAN3), 2106.12423, appendix E; the latent in the place of its Fourier input",
    "dB",
    True,
    "paper",
    of=rotation_errors,
    total=psnr_of_mean,
)
