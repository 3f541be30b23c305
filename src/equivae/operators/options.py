"""The options of a fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Union

from equivae.errors import InputError
from equivae.operators.modules import Padding, check_kernel_size
from equivae.operators.pairs import Precision
from equivae.options import (
    BATCH,
    NOT_NEGATIVE,
    SEED,
    SIDE,
    Options,
    above,
    at_least,
    check_value,
    option,
    within,
)

__all__ = [
    "NETWORK_SIZES",
    "FitOptions",
    "KernelSize",
    "Method",
    "NetworkOptions",
    "NetworkSize",
    "Objective",
    "network_shape",
]

Method = Literal["linear", "network", "conjugation"]
Objective = Literal["latent", "decoded"]
NetworkSize = Literal["small", "medium", "large"]
NETWORK_SIZES: dict[str, tuple[int, int]] = {"small": (32, 3), "medium": (64, 3), "large": (128, 4)}
"""Width and layers of the networks."""


def network_shape(size: NetworkSize) -> tuple[int, int]:
    """Width and layers of a size. `InputError` for an unknown one."""
    check_value("network", size, NetworkSize)
    return NETWORK_SIZES[size]


KernelSize = Union[int, Literal["auto"]]


def _check_kernel_size(name: str, value: KernelSize) -> None:
    if value != "auto":
        check_kernel_size(value)


def _check_magnitude(name: str, value: int) -> None:
    if value != 0:
        check_kernel_size(value)


@dataclass(frozen=True)
class NetworkOptions(Options):
    """Of the residual network, and of the gradient steps that it or a decoded objective takes."""

    max_train_steps: int = option(300, "Optimiser steps.", range=at_least(1))
    learning_rate: float = option(1e-3, "Learning rate of Adam.", range=above(0))
    train_batch_size: int = option(8, "Images per step.", range=BATCH)
    width: int = option(64, "Channels inside the network.", range=at_least(1, 4096))
    seed: int = option(0, "Seed of the weights and of the order.", range=SEED)
    layers: int = option(3, "Layers of the network.", range=at_least(2, 100))
    max_seconds: float = option(
        300.0, "Seconds for the steps, the looks at held-out images included.", range=above(0)
    )
    crop: int | None = option(
        None, "Side in pixels of random crops to learn from; else whole images.", range=SIDE
    )


@dataclass(frozen=True)
class FitOptions(Options):
    """Options of a fit, shared by `fit_latent_op`, `fit_latent_group` and `analyze_latents`."""

    kernel_size: KernelSize = option(
        5, "Odd number of latent cells, or auto.", check=_check_kernel_size
    )
    method: Method = option(
        "linear",
        "linear, network: a small residual network on top of it, or conjugation: an invertible network "
        "that keeps the law of the group exactly.",
    )
    padding: Padding = option(
        "zeros",
        "What a latent op sees beyond the border of a latent: zeros, replicate or reflect; unrelated to the "
        "VAE's padding_mode.",
    )
    ridge: float | None = option(
        None,
        "Ridge of the least squares; by default held-out images choose it.",
        range=NOT_NEGATIVE,
    )
    involution: bool = option(False, "Project a 1x1 operator to eigenvalues of +1, -1.")
    # Held-out images choose the ridge.
    validation_split: float = option(
        0.1,
        "Share of the images held out.",
        range=within(0, 1, open_low=True, open_high=True),
    )
    eval_batch_size: int = option(4, "Images per encoder call.", range=BATCH)
    mixed_precision: Precision = option(
        "no", "Precision of encodes: no, fp16 or bf16; under bf16 gradient steps decode in it too."
    )
    seed: int = option(0, "Seed of the split and of the network.", range=SEED)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    progress: bool = True
    objective: Objective = option(
        "latent", "latent, or decoded: steps on the decoded error follow."
    )
    border: bool = option(True, "A channel of ones beside the zero-padded latent.")
    magnitude: int = option(0, "Side of a kernel over |z|; 0 for none.", check=_check_magnitude)
    phases: bool = option(True, "Fit resampled transforms phase by phase.")
    inverse: bool = option(True, "Fit the inverse too.")

    @property
    def trained(self) -> bool:
        """Whether gradient steps follow the closed form."""
        return self.method != "linear" or self.objective == "decoded"

    def check(self) -> None:
        if self.network.crop is not None and not self.trained:
            raise InputError(
                "crop is for the gradient steps of a network or a decoded objective, and this fit takes "
                "none; leave it out, or pass method='network' or objective='decoded'."
            )
        self._check_conjugation()
        plain = self.kernel_size == 1 and not self.trained and not self.magnitude
        if self.involution and not plain:
            raise InputError(
                "involution=True needs kernel_size=1 and method='linear': only there is the nearest "
                "operator with eigenvalues of +1 and -1 again one of that size."
            )

    def _check_conjugation(self) -> None:
        if self.method != "conjugation":
            return
        given = {
            "padding": "zeros",
            "ridge": None,
            "involution": False,
            "magnitude": 0,
            "border": True,
        }
        wrong = [name for name, default in given.items() if getattr(self, name) != default]
        if wrong:
            raise InputError(
                f"method='conjugation' trains one invertible network and has no {wrong[0]}; leave it out."
            )
        if self.kernel_size == "auto":
            raise InputError(
                "method='conjugation' needs a kernel_size that is a number, such as 5."
            )
