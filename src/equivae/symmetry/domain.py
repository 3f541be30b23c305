"""Fundamental domains on a grid, as weights that sum to one over a group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from equivae.errors import InputError, did_you_mean
from equivae.transforms import Group, LatticeTransform, Transform, get_group, get_transform
from equivae.transforms.groups import list_groups
from equivae.transforms.registry import list_transforms

__all__ = ["Domain", "Method", "domain_weights", "lattice_group", "softened"]

Method = Literal["fundamental-domain", "average"]


@dataclass(frozen=True)
class Domain:
    """Where the weights of a grid are, and with a margin: rows `top:bottom`, columns `left:right`."""

    weights: Tensor
    top: int
    bottom: int
    left: int
    right: int

    @property
    def cells(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def window(self, factor: int, ramp: int) -> Tensor:
        """1 inside the box, 0 outside, with ramps of so many pixels at its edges within the grid."""
        height, width = (length * factor for length in self.weights.shape)
        rows = _window(height, self.top * factor, self.bottom * factor, ramp)
        return rows[:, None] * _window(width, self.left * factor, self.right * factor, ramp)

    @classmethod
    def of(cls, weights: Tensor, margin: int | None) -> Domain:
        """The box around all weights above 0, wider by a margin (`None`: the whole grid)."""
        height, width = weights.shape
        if margin is None:
            return cls(weights, 0, height, 0, width)
        rows = weights.any(1).nonzero().flatten().tolist()
        columns = weights.any(0).nonzero().flatten().tolist()
        return cls(
            weights,
            max(0, rows[0] - margin),
            min(height, rows[-1] + 1 + margin),
            max(0, columns[0] - margin),
            min(width, columns[-1] + 1 + margin),
        )


def _window(length: int, start: int, end: int, ramp: int) -> Tensor:
    places = torch.arange(length, dtype=torch.float64) + 0.5
    inside = ((places > start) & (places < end)).double()
    edges = [places - start] * (start > 0) + [end - places] * (end < length)
    for edge in edges if ramp else ():
        inside = inside * (edge / ramp).clamp(0, 1).mul(math.pi / 2).sin().square()
    return inside


def lattice_group(group: str | Group) -> Group:
    """A group of lattice transforms: by its name, or that of an involution such as `"hflip"`.

    Raises `InputError` for anything else, and for elements whose products are not all among them.
    """
    if isinstance(group, str):
        if group in list_groups():
            group = get_group(group)
        elif group in list_transforms():
            element = get_transform(group)
            if not isinstance(element, LatticeTransform) or element @ element != get_transform(
                "identity"
            ):
                raise InputError(
                    f"{group!r} is not a group: symmetrize takes the groups {', '.join(list_groups())} and "
                    "flips and turns of the grid that undo themselves, such as 'hflip'."
                )
            group = Group(group, (get_transform("identity"), element))
        else:
            known = [*list_groups(), "hflip", "vflip", "rot180", "transpose"]
            raise InputError(f"unknown group {group!r}.{did_you_mean(group, known)}")
    if not all(isinstance(element, LatticeTransform) for element in group):
        raise InputError(
            f"group {group.name!r} holds transforms that are no flips or quarter turns of the grid; only "
            "these have a fundamental domain of whole cells."
        )
    _check_closed(group)
    return group


def _check_closed(group: Group) -> None:
    """`InputError` unless the identity is there, no element twice, and every product an element."""

    def move(element: Transform) -> tuple[bool, bool, bool]:
        assert isinstance(element, LatticeTransform)
        return element.transposes, element.flips_height, element.flips_width

    moves = [move(element) for element in group]
    problem = None
    if move(get_transform("identity")) not in moves:
        problem = "the identity is missing"
    elif len(set(moves)) < len(moves):
        problem = "an element is there twice"
    for a in group:
        for b in group:
            if problem is None and move(a @ b) not in moves:
                problem = f"{a.name} after {b.name} is {(a @ b).name}, which is none of them"
    if problem is not None:
        names = ", ".join(element.name for element in group)
        raise InputError(
            f"the elements of {group.name!r} ({names}) are no group: {problem}; pass all products too."
        )


def domain_weights(group: Group, height: int, width: int, method: Method) -> Tensor:
    r"""Weights `m` on a grid, float64 `(height, width)`, with `Σ_g S_g m = 1` at every cell.

    For `"fundamental-domain"` they are 1 on one cell of every orbit and 0 on the others: the upper half
    for c2 and vflip, the left half for hflip, a quadrant for d2 and c4, a triangle for d4. A cell that
    several elements fix has one over their number. For `"average"` they are `1 / |G|` everywhere.

    A group that exchanges the axes maps a grid that is no square onto one of the exchanged shape; the
    domain lies in the wider of the two and the other has no weight at all.
    """
    if method == "average":
        return torch.full((height, width), 1 / len(group), dtype=torch.float64)
    turns = any(element.swaps_axes for element in group)
    own = _rank(height, width, turns)
    ranks = []
    for element in group:
        shape = (width, height) if element.swaps_axes else (height, width)
        ranks.append(element.latent(_rank(*shape, turns)))
    orbit = torch.stack(ranks)
    fixing = (orbit == own).sum(0)
    return torch.where(own == orbit.amin(0), 1 / fixing.double(), 0.0)


def _rank(height: int, width: int, turns: bool) -> Tensor:
    """An order of all cells whose least member in every orbit makes a compact domain."""
    y = 2 * torch.arange(height)[:, None] - (height - 1)
    x = 2 * torch.arange(width)[None, :] - (width - 1)
    side = 4 * (height + width)
    rank = y * side + x
    if turns and height == width:
        rank = (y + x) * side * side + rank  # a quadrant of the square, not a wedge of it
    if turns and height > width:
        rank = rank + side**3
    return rank


def softened(weights: Tensor, width: int) -> Tensor:
    r"""Weights whose edges are ramps, a raised sine, of so many cells or pixels.

    They are blurred by one lobe of a cosine along both axes. That commutes with flips and quarter turns, so
    that weights which sum to one over a group still do: a partition of unity (weighted frames, Dym et al.,
    arXiv 2402.16077).
    """
    if width < 2 or not weights.any():
        return weights
    half = width // 2
    steps = torch.arange(-half, half + 1, dtype=weights.dtype)
    kernel = torch.cos(math.pi * steps / (2 * half + 2))
    kernel = kernel / kernel.sum()
    soft = F.pad(weights[None, None], [half] * 4, mode="replicate")
    soft = F.conv2d(F.conv2d(soft, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return soft[0, 0]
