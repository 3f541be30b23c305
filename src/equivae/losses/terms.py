"""What every term of an objective is: a module that looks at the decodes of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from equivae.errors import EmptyMaskError
from equivae.losses.decoding import Contribution, Decoding
from equivae.losses.reconstruction import Reconstruction, masked

__all__ = ["ImageTerm", "Term", "compared"]


class Term(nn.Module, ABC):
    r"""One summand of an objective, `L = \sum_i w_i L_i`.

    A term gives its value by name, before the objective's weight. As a module it moves with the run, and
    what it remembers is saved and resumed with it.

    ```python
    import torch

    import equivae
    from equivae.losses import Objective, Term
    from equivae.losses.decoding import Contribution


    class LatentPower(Term):
        def forward(self, decoding):
            return [Contribution("latent_power", decoding.latents.square().mean(), 1.0)]


    loss_fn = equivae.EquivarianceLoss("rot180")
    objective = Objective(equivae.zoo.load(), loss_fn, terms=[(0.01, LatentPower())])
    loss, terms = objective(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert "latent_power" in terms
    ```
    """

    @abstractmethod
    def forward(self, decoding: Decoding) -> list[Contribution]:
        """The summands for one step, their weights relative to the term's own."""


class ImageTerm(Term):
    r"""`R(D(\rho_t z), T_t x)` for every decode of a step, inside the transform's mask.

    Args:
        loss: `R`, a callable `(decoded, target) -> loss` on images `(B, C, H, W)` in [-1, 1] that averages
            over pixels.
    """

    def __init__(self, loss: Reconstruction) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, decoding: Decoding) -> list[Contribution]:
        found = []
        for one in decoding.parts:
            part = one.part
            value = compared(
                self.loss, one.decoded, one.target, one.mask, name=part.name, random=part.random
            )
            if value is None:  # every weight has its gradient, of nothing
                found.append(Contribution(None, one.decoded.float().mean(), 0.0))
            else:
                found.append(Contribution(part.name, value, part.weight))
        return found


def compared(
    loss: Reconstruction,
    seen: Tensor,
    target: Tensor,
    mask: Tensor | None,
    *,
    name: str,
    random: bool,
) -> Tensor | None:
    """The loss inside the mask; `None` where a draw left nothing inside. A fixed transform always would."""
    try:
        return masked(loss, seen, target, mask)
    except EmptyMaskError as error:
        if random:
            return None
        raise EmptyMaskError(f"{name}: {error}") from error
