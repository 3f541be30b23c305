"""Copies of modules, of those too that hold what they computed."""

from __future__ import annotations

import copy

from torch import Tensor, nn

__all__ = ["copy_module"]


def copy_module(module: nn.Module) -> nn.Module:
    """A deep copy with weights of its own.

    `torch.nn.utils.weight_norm` keeps the weight that it computed, with its graph, as an attribute, and
    torch refuses to copy that; the copy gets the value, which its next call computes anew anyway.
    """
    computed = [
        value
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    return copy.deepcopy(module, {id(value): value.detach().clone() for value in computed})
