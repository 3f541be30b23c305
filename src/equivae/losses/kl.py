"""The posterior against the standard normal distribution."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from equivae.losses.decoding import Contribution, Decoding
from equivae.losses.terms import Term

__all__ = ["KLLoss"]


class KLLoss(Term):
    r"""The posterior against the standard normal distribution, a mean over the images.

    .. math:: L = \frac{1}{2} \sum_i (\mu_i^2 + \sigma_i^2 - 1 - \log \sigma_i^2)

    In nats per image, summed over all values of its latent, as in LDM (arXiv 2112.10752), whose weight is
    1e-6. It looks at the posterior whether or not the latents that are decoded were drawn from it.

    ```python
    import torch

    import equivae
    from equivae.losses import Objective, make_terms

    loss_fn = equivae.EquivarianceLoss("rot180")
    objective = Objective(equivae.zoo.load(), loss_fn, terms=make_terms({"kl": 1e-6}))
    loss, terms = objective(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert terms["kl"] > 0
    ```
    """

    name: ClassVar[str] = "kl"
    only_latents: ClassVar[bool] = True
    needs_posterior: ClassVar[bool] = True

    def forward(self, decoding: Decoding) -> list[Contribution]:
        return [Contribution(self.name, divergence(*decoding.gaussian()), 1.0)]


def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """Of normal distributions `(B, ...)` from the standard one, in nats per image."""
    mean, logvar = mean.float(), logvar.float()
    one = mean.square() + logvar.exp() - 1 - logvar
    return one.flatten(1).sum(1).mean() / 2
