"""The spread of the latents, held where it was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.losses.decoding import Contribution, Decoding
from equivae.losses.terms import Term

__all__ = ["LatentStdLoss"]


class LatentStdLoss(Term):
    r"""The spread of the latents' channels against a fixed reference.

    .. math:: L = \frac{1}{c} \sum_k (\sigma_k / s_k - 1)^2

    `sigma_k` is the standard deviation of channel `k` over a batch, `s_k` that of the untouched VAE over
    the first training images, which is kept in the checkpoints; outside a run the first call takes its own.
    A share without units. It keeps the scaling factor of a VAE valid. Source: equivae.

    ```python
    import torch

    import equivae
    from equivae.losses import Objective, make_terms

    loss_fn = equivae.EquivarianceLoss("rot180")
    objective = Objective(equivae.zoo.load(), loss_fn, terms=make_terms({"latent_std": 0.1}))
    loss, terms = objective(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert terms["latent_std"] == 0
    ```
    """

    name: ClassVar[str] = "latent_std"
    only_latents: ClassVar[bool] = True
    reference: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("reference", torch.zeros(0))

    def start(self, vae: Autoencoder, latents: Iterable[Tensor]) -> None:
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for one in latents:
            cells = one.double().cpu().transpose(0, 1).flatten(1)
            count += cells.shape[1]
            total, squares = total + cells.sum(1), squares + cells.square().sum(1)
        spread = (squares / count - (total / count).square()).clamp_min(0).sqrt()
        self.reference = spread.float().to(self.reference.device)

    def forward(self, decoding: Decoding) -> list[Contribution]:
        cells = decoding.modes().float().transpose(0, 1).flatten(1)
        spread = (cells.var(1, unbiased=False) + 1e-12).sqrt()
        if not self.reference.numel():
            self.reference = spread.detach().clone()
        share = spread / self.reference.clamp_min(1e-6)
        return [Contribution(self.name, (share - 1).square().mean(), 1.0)]

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
        saved = state.get(f"{prefix}reference")
        if saved is not None:  # of as many channels as the run had
            self.reference = torch.zeros_like(saved, device=self.reference.device)
        super()._load_from_state_dict(state, prefix, *rest)  # type: ignore[arg-type]
