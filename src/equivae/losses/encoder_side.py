"""The encoder's side of equivariance: the latent of the moved image against the moved latent."""

from __future__ import annotations

import torch
from torch import Tensor

from equivae.losses.decoding import Contribution, Decoding, in_shape_groups, require_same_shape
from equivae.losses.reconstruction import mse
from equivae.losses.terms import Term, compared
from equivae.transforms.base import mask_of_cells

__all__ = ["EncoderTerm", "power_of", "scale_free"]


class EncoderTerm(Term):
    r"""The latent of the moved image against the moved latent, both modes of the posterior.

    .. math:: L = \frac{1}{n} \sum_t \frac{\lVert E(T_t x) - \rho_t E(x) \rVert^2}{P_0}

    `P_0` is the power of the untouched VAE's latents and stays as it is. The gradient has no part along the
    scale of the latents: an encoder that only shrinks its latents lowers the plain squared error without
    being any more equivariant. With `P` the power of both latents, the gradient is that of `error / P`, which
    is the same for latents of every scale, times `P / P_0`.

    Args:
        reference_power: `P_0`, the mean square of the untouched VAE's latents; the first call takes its own
            latents' where it is not given.

    ```python
    import torch

    import equivae

    vae = equivae.zoo.load()
    loss_fn = equivae.EquivarianceLoss("hflip", encoder_weight=0.1)
    out = loss_fn(vae, torch.rand(2, 3, 64, 64) * 2 - 1)
    assert out.terms["encoder/hflip"] > 0
    ```
    """

    def __init__(self, reference_power: float | None = None) -> None:
        super().__init__()
        self.reference_power = reference_power

    def forward(self, decoding: Decoding) -> list[Contribution]:
        images, transforms = decoding.images, decoding.transforms
        latents = decoding.modes()
        drawn = [t.draw(images.shape[0], decoding.generator) for t in transforms]
        reference = self._reference(latents)
        encoded = in_shape_groups([t.pixel(images) for t in drawn], decoding.vae.encode)
        found = []
        every = zip(decoding.named, transforms, drawn, encoded, strict=True)
        for named, placed, transform, seen in every:
            name = f"encoder/{named.name}"
            moved = transform.latent(latents)
            require_same_shape(name, moved, seen)
            mask = transform.mask(images)
            inside = None if mask is None else mask_of_cells(mask, torch.Size(seen.shape[-2:]))
            random = transform is not placed
            error = compared(mse, seen, moved, inside, name=name, random=random)
            if error is None:
                continue
            value = scale_free(error, seen, moved, reference)
            found.append(Contribution(name, value, 1 / len(transforms)))
        return found

    def _reference(self, latents: Tensor) -> float:
        if self.reference_power is None:
            self.reference_power = float(power_of(latents.detach()))
        return self.reference_power


def scale_free(error: Tensor, seen: Tensor, moved: Tensor, reference: Tensor | float) -> Tensor:
    """`error / reference` of latents, whose gradient has no part along their scale."""
    power = (power_of(seen) + power_of(moved)) / 2
    share = error / power  # the same for latents of any scale
    return power.detach() / reference * share


def power_of(latents: Tensor) -> Tensor:
    """Their mean square."""
    return latents.float().square().mean().clamp_min(1e-12)
