"""A short name for what weights are, not for what they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import torch
from torch import nn

__all__ = ["fingerprint_of"]


def fingerprint_of(
    module: nn.Module,
    dtype: torch.dtype | None = None,
    *,
    without: Collection[str] = (),
) -> str:
    """Sixteen hexadecimal digits that tell the weights and buffers of one module from those of another.

    Args:
        module: whose names, shapes, dtypes and bytes count (SHA-256).
        dtype: compare the values in this dtype, so that a copy in another dtype counts as the same.
        without: names that do not count.

    ```python
    from equivae.files.fingerprint import fingerprint_of

    vae = equivae.zoo.load()
    assert fingerprint_of(vae) == fingerprint_of(equivae.zoo.load())
    ```
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if name in without or not isinstance(tensor, torch.Tensor):  # or a module's own extra state
            continue
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()[:16]
