"""Total variation of the latents."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from equivae.losses.decoding import Contribution, Decoding
from equivae.losses.terms import Term

__all__ = ["TotalVariationLoss"]


class TotalVariationLoss(Term):
    r"""The mean step between neighbouring cells of the latents' modes, along both axes.

    .. math:: L = (\overline{|\Delta_x z|} + \overline{|\Delta_y z|}) / \sigma_z

    Divided by the latents' standard deviation, so that smaller latents are no smoother ones. `relative=False`
    leaves the division out, as ai-toolkit's option does. Without units, or in those of the latents. Source:
    Rudin, Osher, Fatemi (1992), the anisotropic form.

    Args:
        relative: divide by the standard deviation.

    ```python
    import torch

    import equivae
    from equivae.losses import Objective, make_terms

    loss_fn = equivae.EquivarianceLoss("rot180")
    objective = Objective(equivae.zoo.load(), loss_fn, terms=make_terms({"total_variation": 0.01}))
    loss, terms = objective(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert terms["total_variation"] > 0
    ```
    """

    name: ClassVar[str] = "total_variation"
    needs_grid: ClassVar[bool] = True
    only_latents: ClassVar[bool] = True

    def __init__(self, *, relative: bool = True) -> None:
        super().__init__()
        self.check_options({"relative": relative})
        self.relative = relative

    def forward(self, decoding: Decoding) -> list[Contribution]:
        latents = decoding.modes().float()
        value = _mean_step(latents, -1) + _mean_step(latents, -2)
        if self.relative:
            value = value / latents.std(unbiased=False).clamp_min(1e-12)
        return [Contribution(self.name, value, 1.0)]


def _mean_step(latents: Tensor, axis: int) -> Tensor:
    return latents.diff(dim=axis).abs().mean()
