"""When two parameters are the same, so that transforms can be compared by what they do."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["hashable", "same"]


def same(a: Any, b: Any) -> bool:
    """Whether two parameters are equal: tensors by their values, lists and tuples by their members.

    ```python
    import torch

    from equivae.transforms.equality import same

    assert same([1, torch.ones(2)], (1.0, torch.ones(2)))
    ```
    """
    if a is b:
        return True
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and _same_tensors(a, b)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if getattr(a, "shape", None) != getattr(b, "shape", None):  # of numpy
        return False
    equal = a == b
    return bool(equal.all() if hasattr(equal, "all") else equal)


def _same_tensors(a: Tensor, b: Tensor) -> bool:
    alike = (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
    return alike and torch.equal(a, b)


def hashable(value: Any) -> Hashable:
    """Something to hash that is equal for all values that are the `same`."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape)
    if isinstance(value, (list, tuple)):
        return tuple(map(hashable, value))
    if isinstance(value, Mapping):
        return frozenset((key, hashable(member)) for key, member in value.items())
    try:
        return hash(value)
    except TypeError:
        return type(value).__qualname__
