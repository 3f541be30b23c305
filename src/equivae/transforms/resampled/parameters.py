"""Parameters of resampled transforms: one number, or one per sample."""

from __future__ import annotations

from typing import Union

import torch
from torch import Tensor

from equivae.errors import InputError

__all__ = ["Parameter", "check_positive", "columns"]

Parameter = Union[float, Tensor]  # a tensor (B,) holds one value per sample


def columns(*parameters: Parameter) -> list[Tensor]:
    """The parameters as float64 tensors of one common length, `(B,)` or `(1,)`."""
    columns = [torch.as_tensor(p, dtype=torch.float64).reshape(-1) for p in parameters]
    count = max(len(column) for column in columns)
    if any(len(column) not in (1, count) for column in columns):
        raise InputError(
            f"parameters for {sorted({len(column) for column in columns})} samples do not go together; give "
            "one number, or one per sample."
        )
    return [column.expand(count) for column in columns]


def check_positive(what: str, *values: Parameter) -> None:
    if not all(bool((torch.as_tensor(value) > 0).all()) for value in values):
        raise InputError(
            f"{what} must be above 0, got {values[0] if len(values) == 1 else values}."
        )
