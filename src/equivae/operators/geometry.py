"""Which operator of phases stands for a resampled transform."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from equivae.operators.modules import Kernel
from equivae.operators.phases import Geometry, PhaseOperator, window_of
from equivae.transforms import Transform, Warp
from equivae.transforms.cells import pair
from equivae.transforms.resampled import FractionalShift, Scale, Translate

__all__ = ["geometry_of", "phase_operator"]

_LARGEST_DENOMINATOR = 32
_MOST_PHASES, _REPEATED = (
    64,
    4,
)  # of a grid, and cells of it for every phase, to fit each on its own
_BINS = (6, 5, 4)
_ROWS = 2  # cells for every unknown of a phase; with fewer, interpolating first is better


def geometry_of(transform: Transform) -> Geometry | None:
    """Where the cells of a transform's result lie in its source; `None` if it cannot be told by numbers."""
    if isinstance(transform, Scale):
        factors = pair(transform.factor, "factor")
        (p, q), (r, s) = (_ratio(factor) for factor in factors)
        exact = all(
            math.isclose(up / down, by, rel_tol=1e-9)
            for (up, down), by in zip(((p, q), (r, s)), factors, strict=True)
        )
        return Geometry("scale", ratio=((p, q), (r, s))) if exact else None
    if isinstance(transform, FractionalShift):
        return Geometry("shift", cells=(transform.y, transform.x), cyclic=transform.cyclic)
    if not isinstance(transform, Warp) or transform.padding_mode not in ("zeros", "circular"):
        return None
    cyclic = transform.padding_mode == "circular"
    if isinstance(transform, Translate) and transform.cells is not None:
        sign = -1.0 if transform.inverted else 1.0
        y, x = pair(transform.cells, "cells")
        return Geometry("shift", cells=(sign * y, sign * x), cyclic=cyclic)
    return _warped(transform, cyclic)


def _ratio(factor: float) -> tuple[int, int]:
    found = Fraction(factor).limit_denominator(_LARGEST_DENOMINATOR)
    return found.numerator, found.denominator


def _warped(transform: Warp, cyclic: bool) -> Geometry | None:
    upright, wide = (transform.homography(aspect) for aspect in (1.0, 2.0))
    if len(upright) != 1:
        return None
    turned = upright.clone()
    square = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
    turned[:, :2, :2] = torch.linalg.inv(square) @ upright[:, :2, :2] @ square
    for isotropic, expected in ((False, upright), (True, turned)):
        if torch.allclose(expected, wide):
            return Geometry(
                "warp",
                matrix=tuple(tuple(row) for row in upright[0].tolist()),
                isotropic=isotropic,
                inverted=transform.inverted,
                cyclic=cyclic,
            )
    return None


def phase_operator(
    geometry: Geometry,
    channels: int,
    size: tuple[int, int],
    cells: int,
    kernel_size: int,
    most_entries: int,
    *,
    border: bool,
    magnitude: bool,
    inputs: int | None = None,
) -> PhaseOperator | None:
    """An unfitted operator for latents of a size; `None` where there are too few cells for its phases.

    Args:
        geometry: where the new cells lie.
        channels: of the latents that it gives.
        size: their height and width.
        cells: how many cells of the result there are to fit on; a rotation gets as many phases as these
            can bear.
        kernel_size: side of the window in cells of the coarser grid: it is wider where the grid shrinks.
        most_entries: of a window, which is made smaller until it has no more.
        border: whether a channel of ones lies beside the latent.
        magnitude: whether `|z|` does.
        inputs: channels of the latents that it takes; `channels` by default.
    """
    planes = (inputs or channels) * (1 + magnitude) + border
    kernel: Kernel = ()
    for base in range(kernel_size, 0, -1):
        kernel = _window(geometry, size, base)
        if planes * math.prod(kernel) <= most_entries:
            break
    entries = planes * math.prod(kernel)
    phases = _offsets(geometry, size, kernel)
    spread, blended = 0.02, False
    repeated = math.prod(geometry.size(*size)) >= _REPEATED * len(phases)
    if len(phases) > _MOST_PHASES or not repeated:
        bins = next((b for b in _BINS if cells >= _ROWS * entries * b * b), None)
        if bins is None:
            return None
        axis = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins - 0.5
        phases, spread, blended = torch.cartesian_prod(axis, axis), 0.5 / bins, True
    return PhaseOperator(
        channels,
        kernel,
        geometry,
        phases,
        spread,
        inputs=inputs,
        border=border,
        magnitude=magnitude,
        blended=blended,
    )


def _offsets(geometry: Geometry, size: tuple[int, int], kernel: Kernel) -> Tensor:
    """The distinct phases of a grid."""
    offsets = window_of(geometry.places(*size).flatten(0, 1), kernel)[1]
    found: Tensor = torch.unique((offsets * 1e4).round() / 1e4, dim=0)
    return found


def _window(geometry: Geometry, size: tuple[int, int], base: int) -> Kernel:
    """Sides as long as `base` cells of the coarser grid, of the parity that has the places in its middle."""
    moved = geometry.size(*size)
    kernel = []
    for axis in (0, 1):
        side = max(base, round(base * 0.6 * size[axis] / moved[axis]))
        sides = []
        for length in (side, side + 1):
            window = (length, 1) if axis == 0 else (1, length)
            sides.append((float(_offsets(geometry, size, window)[:, axis].abs().max()), length))
        kernel.append(sides[0][1] if sides[0][0] <= sides[1][0] + 0.05 else sides[1][1])
    return tuple(kernel)
