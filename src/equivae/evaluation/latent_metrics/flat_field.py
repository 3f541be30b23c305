"""The flat-field test: what becomes of a constant, where grids and borders show."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.evaluation.latent_metrics.base import Metric

__all__ = ["FLAT_FIELD", "FlatField", "OfFlatField", "flat_field"]

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class FlatField:
    """What a VAE makes of constants.

    Attributes:
        levels: the greys, in [0, 1].
        pictures: their reconstructions `(levels, C, H, W)` in [0, 1], not clamped, on the CPU.
        factor: pixels to a cell.
        error: root mean square deviation from the constant, over all levels, in [0, 1] units.
        grid: root mean square of what repeats with every cell, inside the border.
        border: root mean square deviation of the outermost cells from the mean of what is inside.
    """

    levels: tuple[float, ...]
    pictures: Tensor
    factor: int
    error: float
    grid: float
    border: float


def flat_field(
    vae: Autoencoder, height: int, width: int, levels: tuple[float, ...] = LEVELS
) -> FlatField:
    """Encode and decode constants of a size.

    Args:
        vae: within `measuring`.
        height: of the images, in pixels, as `width`.
        levels: greys in [0, 1].
    """
    pictures = []
    for level in levels:  # one by one, whatever the memory
        shape = (1, vae.image_channels, height, width)
        flat = torch.full(shape, 2 * level - 1, device=vae.device, dtype=vae.dtype)
        pictures.append(vae.decode(vae.encode(flat)).float().add(1).div(2).cpu()[0])
    made = torch.stack(pictures).double()
    factor = vae.factor
    rim = factor if min(height, width) > 2 * factor else 0
    inner = made[..., rim : height - rim, rim : width - rim]
    centre = inner.mean((-2, -1), keepdim=True)
    outside = torch.ones(height, width, dtype=torch.bool)
    outside[rim : height - rim, rim : width - rim] = False
    constants = torch.tensor(levels, dtype=torch.float64).view(-1, 1, 1, 1)
    return FlatField(
        levels,
        made.float(),
        factor,
        error=_rms(made - constants),
        grid=_rms(_phases(inner, factor) - centre),
        border=_rms((made - centre)[..., outside]) if rim else 0.0,
    )


def _phases(pictures: Tensor, factor: int) -> Tensor:
    """The mean of all cells, `(..., factor, factor)`."""
    rows, columns = (side // factor * factor for side in pictures.shape[-2:])
    whole = pictures[..., :rows, :columns].unfold(-2, factor, factor).unfold(-2, factor, factor)
    return whole.mean((-4, -3))


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


@dataclass(frozen=True)
class OfFlatField(Metric):
    """A number of the flat-field test.

    Attributes:
        part: which of `FlatField`'s.
    """

    part: str = field(kw_only=True)


def _metric(part: str, label: str, formula: str) -> OfFlatField:
    return OfFlatField(
        f"flat_field_{part}",
        f"flat field: {label}",
        f"{formula}, over the greys 0, 0.25, 0.5, 0.75 and 1, in 8-bit steps",
        "after the flat-field test of cameras, EMVA 1288; the numbers are ours",
        "1/255",
        False,
        "paper",
        part=part,
    )


FLAT_FIELD = (
    _metric("error", "error", "root mean square of D(E(constant)) minus the constant"),
    _metric("grid", "grid", "root mean square of what repeats with every cell"),
    _metric("border", "border", "root mean square of the outermost cells minus the mean inside"),
)
