"""A short name for what weights are, not for what they are called."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

__all__ = ["fingerprint_of"]


def fingerprint_of(module: nn.Module) -> str:
    """Sixteen hexadecimal digits that tell the weights and buffers of one module from those of another.

    Names, shapes, dtypes and every byte count (SHA-256).

    ```python
    from equivae.files.fingerprint import fingerprint_of

    vae = equivae.zoo.load()
    assert fingerprint_of(vae) == fingerprint_of(equivae.zoo.load())
    ```
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):  # a module's own extra state
            continue
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()[:16]
