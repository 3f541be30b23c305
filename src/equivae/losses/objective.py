"""The objective of a run: an autoencoder and the weighted terms that it learns from, as one module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equivae.autoencoder import Autoencoder
from equivae.losses.equivariance import EquivarianceLoss
from equivae.losses.gradients import LastLayers, sum_of
from equivae.losses.masking import LatentMasking
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
        masking: hides cells of the latents from the decoder; its token learns along.

    Attributes:
        step: optimiser steps so far, for terms that start later; whoever steps keeps it up to date.
        weighs: whether the next calls give each term's share of the gradient too, as `share/<term>`: its norm
            at the decoder's last layer that learns, after its weight, as a part of the sum of all norms. It
            costs about a backward pass through what a term computes behind that layer.
        validating: leave out the terms that do not belong to a validation loss.

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
        masking: LatentMasking | None = None,
    ) -> None:
        super().__init__()
        self._vae = vae if isinstance(vae, Autoencoder) else Autoencoder(vae)
        self.module = self._vae.module
        self.operators = nn.ModuleList(operators)
        self.terms = nn.ModuleList(term for _, term in terms)
        self._terms = [term for _, term in terms]  # with their types
        self.weights = [weight for weight, _ in terms]
        self.loss_fn = loss_fn
        self._teacher = teacher  # a view, so that it is not saved with the run
        self.distillation = distillation
        self.masking = masking
        self.step, self.weighs, self.validating = 0, False, False
        self._layers = LastLayers(self._vae)

    def at_step(self, step: int, *, weighs: bool = False) -> None:
        """Tell the step that comes next, and whether the shares of the gradient are wanted for it."""
        self.step, self.weighs = step, weighs

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
        decoding = self.loss_fn.decode(
            self._vae,
            images,
            latents=latents,
            generator=generator,
            step=self.step,
            posterior=any(term.needs_posterior for term in self._terms),
            hide=self.masking,
        )
        if self._terms and torch.is_grad_enabled():
            self._layers.look(images)
        out = self.loss_fn.sum_up(decoding)
        named, values = dict(out.terms), {self.loss_fn.name: out.loss}
        late: list[tuple[str, str, float, Tensor]] = []
        for weight, term in zip(self.weights, self._terms, strict=True):
            if self.validating and not term.validated:
                continue
            term.step = self.step
            name, value = term.name or type(term).__name__, out.loss.new_zeros(())
            found = term(decoding)
            if not found:  # one that has not started
                continue
            for one in found:
                if one.name is not None:
                    named[one.name] = one.value.detach()
                value = value + one.weight * one.value
            if term.adaptive is None:
                values[name] = weight * value
            else:
                late.append((name, term.adaptive, weight, value))
        rest = sum_of(values)
        for name, half, weight, value in late:
            scale = self._layers.scale(half, rest, value)
            named[f"{name}/scale"] = scale
            values[name] = weight * scale * value
        if self.weighs and self._terms and torch.is_grad_enabled():
            named |= self._layers.shares(values)
        return sum_of(values), named
