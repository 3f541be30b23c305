"""Posteriors as people write them: those of diffusers and CompVis, and torch's own distributions."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["drawn", "is_posterior", "mode_of", "repeatable"]


def is_posterior(output: Any) -> bool:
    """Whether it can be sampled, and has a mode or a mean."""
    return (
        not isinstance(output, Tensor)
        and callable(getattr(output, "sample", None))
        and mode_of(output) is not None
    )


def mode_of(posterior: Any) -> Any:
    """Its mode, or else its mean, each as an attribute or a call; `None` where it has neither."""
    for name in ("mode", "mean"):
        try:
            value = getattr(posterior, name, None)
        except NotImplementedError:  # what a distribution of torch without a mode says
            continue
        if value is not None:
            return value() if callable(value) else value
    return None


def drawn(posterior: Any, generator: torch.Generator | None) -> Any:
    """A draw, repeatable by a generator, and with gradients where the posterior can give them."""
    sample = posterior.sample
    if "generator" in _parameters(sample):
        return sample(generator=generator)
    if getattr(posterior, "has_rsample", False):
        sample = posterior.rsample
    if generator is None:
        return sample()
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    with repeatable(seed, mode_of(posterior)):
        return sample()


@contextmanager
def repeatable(seed: int, like: Any) -> Iterator[None]:
    """Within it torch's own draws, on the CPU and on the device of `like`, are those of a seed."""
    on_gpu = isinstance(like, Tensor) and like.device.type == "cuda"
    with torch.random.fork_rng([like.device] if on_gpu else []):
        torch.manual_seed(seed)
        yield


def _parameters(call: Any) -> set[str]:
    try:
        return set(inspect.signature(call).parameters)
    except (TypeError, ValueError):
        return set()
