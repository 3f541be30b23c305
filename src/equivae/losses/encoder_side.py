"""The encoder's side of equivariance: the latent of the moved image against the moved latent."""

from __future__ import annotations

import torch

from equivae.losses.decoding import Contribution, Decoding, in_shape_groups, require_same_shape
from equivae.losses.reconstruction import masked, mse
from equivae.losses.terms import Term
from equivae.transforms.base import mask_of_cells

__all__ = ["EncoderTerm"]


class EncoderTerm(Term):
    r"""`\frac{1}{n} \sum_t \lVert E(T_t x) - \rho_t E(x) \rVert^2 / \lVert E(x) \rVert^2`."""

    def forward(self, decoding: Decoding) -> list[Contribution]:
        images, latents, transforms = decoding.images, decoding.latents, decoding.transforms
        drawn = [t.draw(images.shape[0], decoding.generator) for t in transforms]
        power = latents.detach().float().square().mean().clamp_min(1e-12)
        encoded = in_shape_groups([t.pixel(images) for t in drawn], decoding.vae.encode)
        found = []
        for named, transform, seen in zip(decoding.named, drawn, encoded, strict=True):
            name = f"encoder/{named.name}"
            moved = transform.latent(latents)
            require_same_shape(name, moved, seen)
            mask = transform.mask(images)
            inside = None if mask is None else mask_of_cells(mask, torch.Size(seen.shape[-2:]))
            error = masked(mse, seen, moved, inside) / power
            found.append(Contribution(name, error, 1 / len(transforms)))
        return found
