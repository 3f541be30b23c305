"""Where a term is computed in float32, whatever a run's mixed precision says."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

__all__ = ["in_float32"]


def in_float32(like: Tensor) -> AbstractContextManager[None]:
    """Within it autocast is off on the device of a tensor: differences of squares need their digits."""
    return torch.autocast(like.device.type, enabled=False)  # type: ignore[no-any-return]
