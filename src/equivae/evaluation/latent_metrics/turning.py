"""Grids rotated by any angle within their band, as StyleGAN3's EQ-R does.

Karras et al., 2021, appendix E.3.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MARGIN", "pseudo_rotate", "rotate"]

LOBES = 3
MARGIN = 2 * LOBES  # cells from the border within which the filter reaches beyond it
_UP = 4  # nodes of the continuous image per cell
_FAR = 64  # cells to which the ideal filters are taken before they are convolved


def rotate(grid: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """A grid `(C, h, w)` rotated counterclockwise about its centre, and where it is known, `(h, w)`.

    The grid becomes a continuous image through the filter whose band is what both orientations of the
    lattice can hold, four nodes a cell and linear between them. Zero beyond the border.
    """
    height, width = grid.shape[-2:]
    kernel = _band(angle, _UP).to(grid)
    reach = kernel.shape[-1] // 2
    nodes = grid.new_zeros(grid.shape[0], height * _UP, width * _UP)
    nodes[:, ::_UP, ::_UP] = grid
    nodes = _filtered(nodes, kernel * _UP**2)
    y, x = torch.meshgrid(_centred(height), _centred(width), indexing="ij")
    cos, sin = math.cos(angle), math.sin(angle)
    # Where a rotated cell comes from.
    from_x = cos * x - sin * y + (width - 1) / 2
    from_y = sin * x + cos * y + (height - 1) / 2
    places = [
        2 * (at * _UP + reach) / (side - 1) - 1
        for at, side in ((from_x, nodes.shape[-1]), (from_y, nodes.shape[-2]))
    ]
    where = torch.stack(places, -1).to(grid)[None]
    turned = F.grid_sample(nodes[None], where, mode="bilinear", align_corners=True)[0]
    known = _inside(from_x, width) & _inside(from_y, height)
    return turned, known.to(grid.device)


def pseudo_rotate(grid: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """A grid `(C, h, w)` with the band that the rotation leaves, in its place, and where it is known."""
    kernel = _band(-angle, 1).to(grid)
    reach = kernel.shape[-1] // 2
    filtered = _filtered(grid, kernel)[:, reach:-reach, reach:-reach]
    known = torch.zeros(grid.shape[-2:], dtype=torch.bool, device=grid.device)
    known[reach:-reach, reach:-reach] = True
    return filtered, known


def _centred(side: int) -> Tensor:
    return torch.arange(side, dtype=torch.float64) - (side - 1) / 2


def _inside(place: Tensor, side: int) -> Tensor:
    edge = MARGIN - 0.5
    return (place >= edge) & (place <= side - 1 - edge)


@functools.lru_cache(maxsize=8)
def _band(angle: float, up: int) -> Tensor:
    """The ideal filters of the lattice and of the rotated one convolved, times their windows convolved.

    Odd sides, `2 * MARGIN * up - 1` taps, `up` to a cell; every phase has the same sum, all of them 1.
    """
    taps = (torch.arange(2 * _FAR * up - 1, dtype=torch.float64) - (_FAR * up - 1)) / up
    y, x = torch.meshgrid(taps, taps, indexing="ij")
    cos, sin = math.cos(angle), math.sin(angle)
    turned_x, turned_y = cos * x + sin * y, cos * y - sin * x
    ideal = _convolved(torch.sinc(x) * torch.sinc(y), torch.sinc(turned_x) * torch.sinc(turned_y))
    window = _convolved(_window(x) * _window(y), _window(turned_x) * _window(turned_y))
    cut = (_FAR - MARGIN) * up
    kernel = (ideal * window)[cut:-cut, cut:-cut]
    phases = F.pad(kernel, (0, 1, 0, 1)).reshape(2 * MARGIN, up, 2 * MARGIN, up)
    phases = phases / phases.sum((0, 2), keepdim=True) / up**2
    return phases.reshape(2 * MARGIN * up, 2 * MARGIN * up)[:-1, :-1]


def _window(distance: Tensor) -> Tensor:
    return torch.where(distance.abs() < LOBES, torch.sinc(distance / LOBES), 0.0)


def _filtered(planes: Tensor, kernel: Tensor) -> Tensor:
    """Planes `(C, h, w)` convolved with an odd kernel, half of it more on every side."""
    size = [a + b - 1 for a, b in zip(planes.shape[-2:], kernel.shape, strict=True)]
    spectra = [torch.fft.rfft2(one, s=size) for one in (planes, kernel)]
    filtered: Tensor = torch.fft.irfft2(spectra[0] * spectra[1], s=size)
    return filtered


def _convolved(a: Tensor, b: Tensor) -> Tensor:
    spectra = [torch.fft.rfft2(torch.fft.ifftshift(one)) for one in (a, b)]
    convolved: Tensor = torch.fft.fftshift(torch.fft.irfft2(spectra[0] * spectra[1], s=a.shape))
    return convolved
