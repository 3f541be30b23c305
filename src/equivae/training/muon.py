"""Muon for the weights that are matrices, convolutions among them, and AdamW for the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Muon"]

_SCALE = 0.2  # the usual size of AdamW's steps, as a part of their rate
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(torch.optim.AdamW):
    """AdamW, but for weights of two axes and more, whose momentum is orthogonalised before a step.

    Jordan et al., 2024 (kellerjordan.github.io/posts/muon), with the steps scaled to the size of AdamW's, so
    that a learning rate means the same (Liu et al., arXiv 2502.16982). A convolution's kernel
    `(out, in, *kernel)` is a matrix `(out, in x kernel)`; `torch.optim.Muon` takes matrices alone.

    Args:
        params: weights or groups of them, as for AdamW.
        lr: learning rate of all of them, where a group has none of its own.
        momentum: of the matrices, Nesterov's.
        adamw: further options of AdamW; its weight decay holds for the matrices too.

    ```python
    import torch

    from equivae.training.muon import Muon

    layer = torch.nn.Conv2d(3, 8, 3)
    optimizer = Muon(layer.parameters(), lr=1e-3)
    layer(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    ```
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.95, **adamw: Any) -> None:
        # Not fused: such a one is handed gradients that fp16 has scaled, and asked to undo it.
        super().__init__(params, lr, fused=False, **adamw)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step. Gradients of the matrices are gone afterwards."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim > 1 and weight.grad is not None:
                    self._turn(weight, weight.grad, group)
                    weight.grad = None  # AdamW leaves out what has none
        super().step()
        return loss

    def _turn(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:  # AdamW looks for its count in every state that is loaded
            state["step"], state["momentum"] = torch.zeros(()), torch.zeros_like(weight)
        state["step"] += 1
        kept = state["momentum"].lerp_(gradient, 1 - self.momentum)
        matrix = torch.lerp(gradient, kept, self.momentum).flatten(1)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        size = _SCALE * max(matrix.shape) ** 0.5
        weight.add_(orthogonal(matrix).view(weight.shape), alpha=-group["lr"] * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix of the same singular vectors whose singular values are near 1, by five Newton-Schulz steps."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    found: Tensor = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        gram = found @ found.T
        found = _A * found + (_B * gram + _C * gram @ gram) @ found
    return found if wide is matrix else found.T
