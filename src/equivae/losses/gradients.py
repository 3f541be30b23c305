"""How strongly each term pulls at a last layer: shares of the gradient's norm, and VQGAN's scale."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equivae.autoencoder import Autoencoder
from equivae.autoencoder.last_layers import weights_in_order

__all__ = ["LastLayers", "sum_of"]

_SOFT = 1e-4  # VQGAN's
_MOST = {"decoder": 1e4, "encoder": 1e8}  # VQGAN's and SSVAE's


class LastLayers:
    """The last weights of either half that learn, at which gradients are compared."""

    def __init__(self, vae: Autoencoder) -> None:
        self.vae = vae
        self._order: dict[str, list[nn.Parameter]] | None = None

    def look(self, images: Tensor) -> None:
        """Find the order of the layers, once."""
        if self._order is None:
            self._order = weights_in_order(self.vae, images)

    def of(self, half: str) -> nn.Parameter | None:
        """The last weight of a half that learns; `None` where none does."""
        learning = [w for w in (self._order or {}).get(half, []) if w.requires_grad]
        return learning[-1] if learning else None

    def scale(self, half: str, rest: Tensor, value: Tensor) -> Tensor:
        r"""`\lVert \nabla rest \rVert / (\lVert \nabla value \rVert + 10^{-4})`; 1 where nothing learns."""
        weight = self.of(half)
        if weight is None or not torch.is_grad_enabled():
            return value.new_ones(())
        ratio = _norm(rest, weight) / (_norm(value, weight) + _SOFT)
        return ratio.clamp(0.0, _MOST[half]).detach()

    def shares(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`share/<name>`: each value's part of the sum of the norms at the decoder's last layer."""
        weight = self.of("decoder")
        if weight is None:
            return {}
        norms = {name: _norm(value, weight) for name, value in values.items() if name != "none"}
        whole = torch.stack(list(norms.values())).sum().clamp_min(1e-30)
        return {f"share/{name}": norm / whole for name, norm in norms.items()}


def sum_of(values: Mapping[str, Tensor]) -> Tensor:
    """Of all values, in their order."""
    first, *others = values.values()
    for value in others:
        first = first + value
    return first


def _norm(value: Tensor, weight: nn.Parameter) -> Tensor:
    """Of the gradient at the weight; 0 for what does not depend on it."""
    if not value.requires_grad:
        return value.new_zeros(())
    (found,) = torch.autograd.grad(value, weight, retain_graph=True, allow_unused=True)
    if found is None:
        return value.new_zeros(())
    norm: Tensor = torch.linalg.vector_norm(found.detach().float())
    return norm
