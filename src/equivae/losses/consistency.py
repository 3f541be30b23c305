"""The latent of what was decoded against what it was decoded from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.losses.decoding import Contribution, Decoding, in_shape_groups, require_same_shape
from equivae.losses.encoder_side import power_of, scale_free
from equivae.losses.reconstruction import mse
from equivae.losses.terms import Term, compared
from equivae.transforms.base import mask_of_cells

__all__ = ["LatentConsistencyLoss"]


class LatentConsistencyLoss(Term):
    r"""The latent of what was decoded against the latent that it was decoded from.

    .. math:: L = \frac{\lVert E(D(\rho_t z)) - \rho_t z \rVert^2}{P_0}

    A mean over the cells of every decode. The gradient reaches the decoder through the encoder, and the
    encoder if it learns; `E` gives the posterior's mode. `P_0` is the mean square of the untouched VAE's
    latents, kept in the checkpoints, and the gradient has no part along the latents' scale; see
    `equivae.losses.EncoderTerm`. Without units. Costs an encode of every decode. Source: cycle consistency
    (Zhu et al., arXiv 1703.10593) between the two halves.

    ```python
    import torch

    import equivae
    from equivae.losses import Objective, make_terms

    loss_fn = equivae.EquivarianceLoss("rot180")
    objective = Objective(
        equivae.zoo.load(), loss_fn, terms=make_terms({"latent_consistency": 0.1})
    )
    loss, terms = objective(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert terms["latent_consistency/equivariance/rot180"] > 0
    ```
    """

    name: ClassVar[str] = "latent_consistency"
    reference: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("reference", torch.zeros(()))
        self._known = False

    def start(self, vae: Autoencoder, latents: Iterable[Tensor]) -> None:
        powers = [float(power_of(one)) for one in latents]
        self.reference.fill_(sum(powers) / len(powers))

    def forward(self, decoding: Decoding) -> list[Contribution]:
        if not self._known:  # asked once: every look at it waits for the device
            if not self.reference:
                self.reference.fill_(float(power_of(decoding.latents.detach())))
            self._known = True
        encoded = in_shape_groups([one.decoded for one in decoding.parts], decoding.vae.encode)
        found = []
        for one, seen in zip(decoding.parts, encoded, strict=True):
            part, name = one.part, f"{self.name}/{one.part.name}"
            moved = part.transform.latent(part.take(decoding.latents))
            require_same_shape(name, moved, seen)
            inside = None
            if one.mask is not None:
                inside = mask_of_cells(one.mask, torch.Size(seen.shape[-2:]))
            error = compared(mse, seen, moved, inside, name=name, random=part.random)
            if error is None:
                found.append(Contribution(None, seen.float().mean(), 0.0))
                continue
            value = scale_free(error, seen, moved, self.reference)
            found.append(Contribution(name, value, part.weight))
        return found
