"""The objective of a run: an autoencoder and the weighted terms that it learns from, as one module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equivae.autoencoder import Autoencoder
from equivae.losses.equivariance import EquivarianceLoss
from equivae.losses.terms import Term

__all__ = ["Objective"]


class Objective(nn.Module):
    r"""`L = L_{equivariance} + \sum_i w_i L_i` around one autoencoder.

    Everything that learns is a submodule, so that a run's accelerator moves, wraps and saves it as one: the
    autoencoder, trained latent ops, and the further terms.

    Args:
        vae: the autoencoder that learns.
        loss_fn: reconstruction and equivariance; it decides what is decoded.
        terms: `(weight, term)`: further terms on the same decodes.
        operators: modules of latent ops that learn along with the autoencoder.
        teacher: an untouched autoencoder. Decodes are compared with a blend of the image and what the
            teacher decodes from the same latent.
        distillation: the teacher's share of that blend, from 0 to 1.

    ```python
    import torch

    import equivae
    from equivae.losses import Objective

    objective = Objective(equivae.zoo.load(), equivae.EquivarianceLoss("rot180"))
    loss, terms = objective(torch.rand(2, 3, 64, 64) * 2 - 1)
    loss.backward()
    ```
    """

    def __init__(
        self,
        vae: nn.Module | Autoencoder,
        loss_fn: EquivarianceLoss,
        *,
        terms: Sequence[tuple[float, Term]] = (),
        operators: Sequence[nn.Module] = (),
        teacher: Autoencoder | None = None,
        distillation: float = 0.0,
    ) -> None:
        super().__init__()
        self._vae = vae if isinstance(vae, Autoencoder) else Autoencoder(vae)
        self.module = self._vae.module
        self.operators = nn.ModuleList(operators)
        self.terms = nn.ModuleList(term for _, term in terms)
        self.weights = [weight for weight, _ in terms]
        self.loss_fn = loss_fn
        self._teacher = teacher  # a view, so that it is not saved with the run
        self.distillation = distillation

    def forward(
        self,
        images: Tensor,
        latents: Tensor | None = None,
        generator: torch.Generator | None = None,
        taught: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and its terms by name, detached and before their weights.

        Args:
            images: `(B, C, H, W)` in [-1, 1].
            latents: `E(images)` when it is known already.
            generator: a CPU generator for the draws of the step.
            taught: what the teacher decodes from these latents, when it is known already.
        """
        if self._teacher is not None:
            with torch.no_grad():
                if taught is None:
                    latents = self._teacher.encode(images) if latents is None else latents
                    taught = self._teacher.decode(latents)
                images = torch.lerp(images, taught.to(images.dtype), self.distillation)
        decoding = self.loss_fn.decode(self._vae, images, latents=latents, generator=generator)
        out = self.loss_fn.sum_up(decoding)
        loss, named = out.loss, dict(out.terms)
        for weight, term in zip(self.weights, self.terms, strict=True):
            for one in term(decoding):
                if one.name is not None:
                    named[one.name] = one.value.detach()
                loss = loss + weight * one.weight * one.value
        return loss, named
