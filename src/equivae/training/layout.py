"""The order in which the weights of 2D convolutions lie in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from equivae.training.config import FinetuneConfig

__all__ = ["channels_last", "wants_channels_last"]


def wants_channels_last(config: FinetuneConfig) -> bool:
    """What the options say, else whether a run gains by it and can have it everywhere."""
    if config.channels_last is not None:
        return config.channels_last
    return config.mixed_precision != "no" and not config.freeze


@contextmanager
def channels_last(module: nn.Module) -> Iterator[None]:
    """Within it kernels of 2D convolutions lie channels-last, afterwards as safetensors wants them.

    They stay the same parameters, so that an optimiser that holds them goes on working.
    """
    _order(module, torch.channels_last)
    try:
        yield
    finally:
        _order(module, torch.contiguous_format)


def _order(module: nn.Module, order: torch.memory_format) -> None:
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = _ordered(parameter.data, order)


def _ordered(weight: Tensor, order: torch.memory_format) -> Tensor:
    """With the strides of that order, which torch leaves as they are for 1x1 kernels.

    Under autocast the gradients of those have them, and processes that share gradients copy what differs.
    """
    _, channels, height, width = weight.shape
    if order != torch.channels_last:
        return weight.contiguous().reshape(-1).view(weight.shape)
    strides = (channels * height * width, 1, channels * width, channels)
    if weight.stride() == strides:
        return weight
    return weight.new_empty_strided(weight.shape, strides).copy_(weight)
