"""The options of a fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Union

from equivae.errors import InputError
from equivae.operators.modules import check_kernel_size
from equivae.operators.network import NetworkOptions
from equivae.operators.pairs import Precision
from equivae.operators.regression import Padding
from equivae.options import BATCH, NOT_NEGATIVE, SEED, Options, option, within

__all__ = ["FitOptions", "KernelSize", "Method"]

Method = Literal["linear", "network"]
KernelSize = Union[int, Literal["auto"]]


def _check_kernel_size(name: str, value: KernelSize) -> None:
    if value != "auto":
        check_kernel_size(value)


@dataclass(frozen=True)
class FitOptions(Options):
    """Options of a fit, shared by `fit_latent_op`, `fit_latent_group` and `analyze_latents`."""

    kernel_size: KernelSize = option(
        5, "Odd number of latent cells, or auto.", check=_check_kernel_size
    )
    method: Method = option("linear", "linear, or network: a small residual network on top of it.")
    padding: Padding = option("zeros", "Cells beyond the border: zeros, replicate or reflect.")
    ridge: float | None = option(
        None, "Of the least squares; else held-out images choose it.", range=NOT_NEGATIVE
    )
    involution: bool = option(False, "Project a 1x1 operator to eigenvalues of +1, -1.")
    # Held-out images choose the ridge.
    validation_split: float = option(
        0.1,
        "Share of the images held out.",
        range=within(0, 1, open_low=True, open_high=True),
    )
    eval_batch_size: int = option(4, "Images per encoder call.", range=BATCH)
    mixed_precision: Precision = option("no", "no, fp16 or bf16.")
    seed: int = option(0, "Of the split and of the network.", range=SEED)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    progress: bool = True

    def check(self) -> None:
        if self.involution and (self.kernel_size != 1 or self.method != "linear"):
            raise InputError(
                "involution=True needs kernel_size=1 and method='linear': only there is the nearest "
                "operator with eigenvalues of +1 and -1 again one of that size."
            )
