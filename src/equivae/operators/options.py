"""Options of a fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Union, get_args

from equivae.errors import InputError, did_you_mean
from equivae.operators.modules import Padding, check_kernel_size
from equivae.operators.pairs import Precision

__all__ = ["NETWORK_SIZES", "FitOptions", "KernelSize", "Method", "NetworkOptions", "Objective"]

Method = Literal["linear", "network"]
Objective = Literal["latent", "decoded"]
KernelSize = Union[int, Literal["auto"]]

NETWORK_SIZES = {"small": (32, 3), "medium": (64, 3), "large": (128, 4)}
"""Width and layers of the networks."""


@dataclass(frozen=True)
class NetworkOptions:
    """Of the residual network, and of the gradient steps that it or a decoded objective takes."""

    max_train_steps: int = 300
    learning_rate: float = 1e-3
    train_batch_size: int = 8
    width: int = 64
    seed: int = 0
    layers: int = 3

    def __post_init__(self) -> None:
        for name in ("max_train_steps", "train_batch_size", "width"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.layers < 2:
            raise InputError(f"layers must be at least 2, got {self.layers}.")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate must be above 0, got {self.learning_rate}.")


@dataclass(frozen=True)
class FitOptions:
    """Options of a fit, shared by `fit_latent_op`, `fit_latent_group` and `analyze_latents`."""

    kernel_size: KernelSize = 5
    method: Method = "linear"
    padding: Padding = "zeros"
    ridge: float | None = None
    involution: bool = False
    validation_split: float = 0.1
    eval_batch_size: int = 4
    mixed_precision: Precision = "no"
    seed: int = 0
    network: NetworkOptions = field(default_factory=NetworkOptions)
    progress: bool = True
    objective: Objective = "latent"
    border: bool = True
    magnitude: int = 0
    phases: bool = True

    def __post_init__(self) -> None:
        if self.kernel_size != "auto":
            check_kernel_size(self.kernel_size)
        if self.magnitude != 0:
            check_kernel_size(self.magnitude)
        named = (
            ("method", Method),
            ("padding", Padding),
            ("mixed_precision", Precision),
            ("objective", Objective),
        )
        for name, kind in named:
            if getattr(self, name) not in get_args(kind):
                known = get_args(kind)
                raise InputError(
                    f"{name}={getattr(self, name)!r} is unknown."
                    f"{did_you_mean(str(getattr(self, name)), known)}"
                )
        if self.ridge is not None and not self.ridge >= 0:
            raise InputError(f"ridge must not be negative, got {self.ridge}.")
        if not 0 < self.validation_split < 1:
            raise InputError(
                f"validation_split must lie between 0 and 1, got {self.validation_split}: held-out images "
                "choose the ridge."
            )
        if self.eval_batch_size < 1:
            raise InputError(f"eval_batch_size must be at least 1, got {self.eval_batch_size}.")
        plain = self.kernel_size == 1 and not self.trained and not self.magnitude
        if self.involution and not plain:
            raise InputError(
                "involution=True needs kernel_size=1 and method='linear': only there is the nearest "
                "operator with eigenvalues of +1 and -1 again one of that size."
            )

    @property
    def trained(self) -> bool:
        """Whether gradient steps follow the closed form."""
        return self.method == "network" or self.objective == "decoded"
