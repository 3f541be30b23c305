"""A network that a term looks through: it moves with the term, never learns and is saved with no run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from equivae.losses.colours import as_rgb
from equivae.losses.terms import ImageTerm, TermContext

__all__ = ["FrozenNetworkTerm"]


class FrozenNetworkTerm(ImageTerm):
    """A term with a network that stays as it is: its weights are those of a file that everyone can have.

    Attributes:
        network: in evaluation mode, without gradients of its own.
    """

    needs_grid: ClassVar[bool] = True

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # Not registered: `state_dict` and a run's checkpoints leave it out, `train()` does not reach it.
        self._frozen = [network.eval().requires_grad_(False)]

    @property
    def network(self) -> Any:
        return self._frozen[0]

    def fixed_modules(self) -> list[nn.Module]:
        return [self.network]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenNetworkTerm:
        self.network._apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def check_run(self, context: TermContext) -> None:
        super().check_run(context)
        as_rgb(context.example, self.name)
