"""EQ-T: the decoder as a generator whose input is moved, judged as StyleGAN3 is."""

from __future__ import annotations

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.evaluation.latent_metrics.base import PerImage, generator_of, psnr_of_mean
from equivae.evaluation.latent_metrics.lanczos import lanczos_shift
from equivae.evaluation.quality import mean_inside
from equivae.evaluation.roundtrip import Reconstruction

__all__ = ["EQ_T", "translation_errors"]

FARTHEST = 0.125  # of a side


def translation_errors(vae: Autoencoder, batch: Reconstruction, seeds: list[int]) -> Tensor | None:
    """Mean squared difference of `D(T z)` and `T D(z)` inside what is known of both, over 4, `(B,)`.

    `T` moves by whole pixels, up to an eighth of the side, drawn for every image; the latent moves as far
    with Lanczos' filter. Over 4, as values in [-1, 1] have a range of 2; nothing is clamped. `None` where
    no cell is known for the largest move.
    """
    if batch.z.ndim != 4:
        return None
    height, width = batch.output.shape[-2:]
    factor = height / batch.z.shape[-2]
    moved, masks, targets = [], [], []
    for i, seed in enumerate(seeds):
        share = (torch.rand(2, generator=generator_of(seed)) * 2 - 1) * FARTHEST
        down, right = (
            round(float(s) * side) for s, side in zip(share, (height, width), strict=True)
        )
        latent, known = lanczos_shift(batch.z[i], down / factor, right / factor)
        picture, inside = _moved(batch.output[i], down, right)
        cells = known.repeat_interleave(round(factor), 0).repeat_interleave(round(factor), 1)
        moved.append(latent)
        targets.append(picture)
        masks.append((inside & cells)[None])
    mask = torch.stack(masks)
    if not bool(mask.flatten(1).any(1).all()):
        return None
    seen = vae.decode(torch.stack(moved)).float()
    return mean_inside((seen - torch.stack(targets).float()).square() / 4, mask)


def _moved(image: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """`(C, H, W)` moved by whole pixels, and where it is known, `(H, W)`."""
    rows, columns = (torch.arange(side, device=image.device) for side in image.shape[-2:])
    rows, columns = rows - down, columns - right
    known_rows = (rows >= 0) & (rows < image.shape[-2])
    known_columns = (columns >= 0) & (columns < image.shape[-1])
    picture = image[:, rows.clamp(0, image.shape[-2] - 1)][
        ..., columns.clamp(0, image.shape[-1] - 1)
    ]
    return picture, known_rows[:, None] & known_columns


EQ_T = PerImage(
    "eq_t",
    "EQ-T of the decoder",
    "PSNR of D(T z) against T D(z) inside what is known of both, range 2 in [-1, 1]; T by whole pixels up to "
    "an eighth of the side, z with Lanczos' filter; of the mean error over the images",
    "Karras et al. (StyleGAN3), 2106.12423, appendix E; the latent in the place of its Fourier input",
    "dB",
    True,
    "paper",
    of=translation_errors,
    total=psnr_of_mean,
)
