"""LEE: the Lie-derivative equivariance error of the decoder under rotation, shift and scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.evaluation.latent_metrics.base import PerImage
from equivae.evaluation.roundtrip import Reconstruction

__all__ = [
    "BORDER",
    "FIELDS",
    "LEE_ROTATION",
    "LEE_SCALE",
    "LEE_SHIFT",
    "UNITS",
    "lie_derivative",
    "lie_error",
]

Field = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
_STEP = 0.01  # of the derivative along the decoder, as a share of the latent's spread
BORDER = 2  # cells

FIELDS: dict[str, tuple[Field, ...]] = {
    "rotation": (lambda y, x: (-x, y),),
    "scale": (lambda y, x: (y, x),),
    "shift": (
        lambda y, x: (torch.full_like(y, len(y)), torch.zeros_like(x)),
        lambda y, x: (torch.zeros_like(y), torch.full_like(x, x.shape[1])),
    ),
}
"""The velocities down and right of a cell at `(y, x)` from the centre: of a radian, of a factor of e, of
a whole side down and right."""

UNITS = {"rotation": "radian", "scale": "factor of e", "shift": "side"}
"""What the derivative along each is by."""


def lie_derivative(vae: Autoencoder, z: Tensor, output: Tensor, field: Field) -> Tensor:
    """`L D(z) = J_D(z) X z - X D(z)`, `(B, C, H, W)`: how the decode fails to follow an infinitesimal move.

    `X` is the move's generator, minus the gradient along its velocity, by central differences of cells and
    pixels; the derivative along the decoder by a central difference, which any module has.

    Args:
        vae: within `measuring`.
        z: latents `(B, c, h, w)`.
        output: `D(z)`.
        field: one of `FIELDS`.
    """
    direction = _moved(z.float(), field)
    spread = z.float().flatten(1).std(1) / direction.flatten(1).norm(dim=1).clamp_min(1e-12)
    step = (_STEP * spread * direction[0].numel() ** 0.5).view(-1, 1, 1, 1)
    ahead, behind = (vae.decode((z + s * direction).to(z)).float() for s in (step, -step))
    along = torch.where(step > 0, (ahead - behind) / (2 * step), 0.0)
    return along - _moved(output.float(), field)


def lie_error(
    name: str, vae: Autoencoder, batch: Reconstruction, seeds: list[int]
) -> Tensor | None:
    """`‖L D(z)‖² / dim` of every image in [0, 1] units, mean over the move's directions, `(B,)`.

    Without the outermost two cells, whose differences reach beyond the border; `None` where nothing is left.
    """
    if batch.z.ndim != 4 or min(batch.z.shape[-2:]) <= 2 * BORDER:
        return None
    edge = BORDER * round(batch.output.shape[-2] / batch.z.shape[-2])
    errors = []
    for field in FIELDS[name]:
        derivative = lie_derivative(vae, batch.z, batch.output, field)
        inside = derivative[..., edge:-edge, edge:-edge] / 2
        errors.append(inside.square().flatten(1).mean(1))
    return torch.stack(errors).mean(0)


def _moved(grid: Tensor, field: Field) -> Tensor:
    """`X g` of a grid `(B, C, h, w)`."""
    axes = [
        torch.arange(side, dtype=grid.dtype, device=grid.device) - (side - 1) / 2
        for side in grid.shape[-2:]
    ]
    down, right = field(*torch.meshgrid(*axes, indexing="ij"))
    vertical, horizontal = torch.gradient(grid, dim=(-2, -1))
    return -(down * vertical + right * horizontal)


def _metric(name: str, unit: str) -> PerImage:
    return PerImage(
        f"lee_{name}",
        f"Lie-derivative error of the decoder, {name}",
        f"mean square of d/dt [{name}(-t) D({name}(t) z)] at t = 0, in [0, 1] units per {unit}, without the "
        "outermost two cells; mean over the images",
        "Gruver et al., 2210.02984, with central differences for the interpolation",
        "",
        False,
        "all",
        of=partial(lie_error, name),
        within=(0.0, math.inf),
    )


LEE_ROTATION = _metric("rotation", UNITS["rotation"])
LEE_SHIFT = _metric("shift", f"{UNITS['shift']}, mean of down and right")
LEE_SCALE = _metric("scale", UNITS["scale"])
