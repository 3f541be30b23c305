"""The share of fine detail in the latents' power."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from equivae.losses.decoding import Contribution, Decoding
from equivae.losses.spectra import cosine_power, radii
from equivae.losses.terms import Term
from equivae.options import Range, within

__all__ = ["LatentSpectrumLoss"]


class LatentSpectrumLoss(Term):
    r"""The share of high frequencies in the latents' power `P`.

    .. math:: L = \sum_{|f| > f_0} P(f) / \sum_{|f| > 0} P(f)

    `P` is the power of the DCT of the latents' modes, over all channels and images of a batch; frequencies
    are shares of the highest. From 0 to 1, the same for latents of every scale. That strong high frequencies
    hurt the diffusion model is the finding of Skorokhodov et al. (arXiv 2502.14831); this form is equivae's.

    Args:
        cutoff: `f_0`, a share of the highest frequency.

    ```python
    import torch

    import equivae
    from equivae.losses import Objective, make_terms

    loss_fn = equivae.EquivarianceLoss("rot180")
    terms = make_terms({"latent_spectrum": {"weight": 0.1, "cutoff": 0.5}})
    objective = Objective(equivae.zoo.load(), loss_fn, terms=terms)
    loss, values = objective(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert 0 < values["latent_spectrum"] < 1
    ```
    """

    name: ClassVar[str] = "latent_spectrum"
    needs_grid: ClassVar[bool] = True
    only_latents: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, Range]] = {"cutoff": within(0, 1, open_low=True, open_high=True)}

    def __init__(self, *, cutoff: float = 0.5) -> None:
        super().__init__()
        self.check_options({"cutoff": cutoff})
        self.cutoff = cutoff

    def forward(self, decoding: Decoding) -> list[Contribution]:
        power = cosine_power(decoding.modes()).flatten(0, -3).sum(0)
        radius = radii(*power.shape, device=power.device)
        high = power[radius > self.cutoff].sum()
        whole = power[radius > 0].sum().clamp_min(torch.finfo(power.dtype).tiny)
        return [Contribution(self.name, high / whole, 1.0)]
