"""Posteriors as people write them: those of diffusers and CompVis, and torch's own distributions."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

__all__ = ["drawn", "drawn_from", "gaussian_of", "is_posterior", "mode_of", "repeatable"]


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


def gaussian_of(output: Any) -> tuple[Tensor, Tensor] | None:
    """Mean and logarithm of the variance of what `encode` returned; `None` for other than a Gaussian."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    posterior = getattr(output, "latent_dist", output)
    mean, logvar = getattr(posterior, "mean", None), getattr(posterior, "logvar", None)
    if isinstance(posterior, Normal):
        return posterior.mean, posterior.variance.log()
    if (
        isinstance(mean, Tensor)
        and isinstance(logvar, Tensor)
        and not isinstance(posterior, Tensor)
    ):
        return mean, logvar
    return None


def drawn_from(gaussian: tuple[Tensor, Tensor], generator: torch.Generator | None) -> Tensor:
    """A draw from mean and logarithm of the variance, the same that diffusers' posterior makes."""
    from diffusers.utils.torch_utils import randn_tensor

    mean, logvar = gaussian
    noise = randn_tensor(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    draw: Tensor = mean + torch.exp(0.5 * logvar) * noise
    return draw


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
        # Not torch.manual_seed, which seeds the other devices too, and those would stay so.
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(like.device):
                torch.cuda.manual_seed(seed)
        yield


def _parameters(call: Any) -> set[str]:
    try:
        return set(inspect.signature(call).parameters)
    except (TypeError, ValueError):
        return set()
