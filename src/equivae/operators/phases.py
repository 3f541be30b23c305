"""Operators that take the untouched latent to another grid, with one filter for every phase of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivae.errors import InputError
from equivae.operators.modules import Kernel, LatentOperator

__all__ = ["Geometry", "PhaseOperator", "window_of"]

_NEAR = 0.02  # cells; a phase closer to a fitted one than this is that one


@dataclass(frozen=True)
class Geometry:
    """Where the cells of the moved latent lie in the untouched one; made of numbers alone, so that it saves.

    Attributes:
        kind: `"scale"`, `"shift"` or `"warp"`.
        ratio: of `"scale"`: `((p, q), (p, q))` for height and width, which get `p / q` times as many cells.
        cells: of `"shift"`: cells downwards and to the right.
        matrix: of `"warp"`: from a point of the source to its point in the result, 3x3 on `(x, y, 1)`, in
            the coordinates of `Warp`, of a square.
        isotropic: of `"warp"`: whether its linear part has angles, which stay angles on a grid that is no
            square; otherwise it is in shares of the sides.
        inverted: of `"warp"`: whether the matrix leads the other way.
        cyclic: whether what leaves on one side enters on the other.
    """

    kind: str
    ratio: tuple[tuple[int, int], tuple[int, int]] | None = None
    cells: tuple[float, float] | None = None
    matrix: tuple[tuple[float, ...], ...] | None = None
    isotropic: bool = False
    inverted: bool = False
    cyclic: bool = False

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The cells of the moved latent. `InputError` for sides that a ratio does not divide."""
        if self.kind != "scale":
            return height, width
        assert self.ratio is not None
        for side, (_, down) in zip((height, width), self.ratio, strict=True):
            if side % down:
                raise InputError(
                    f"a latent of {height}x{width} cells cannot be scaled by this operator, which takes "
                    f"sides that divide by {down}; crop or pad it to such sides."
                )
        (p, q), (r, s) = self.ratio
        return height * p // q, width * r // s

    @property
    def tile(self) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """`((p, q), (r, s))` if every `q` by `s` cells become `p` by `r` in the same way; else `None`."""
        if self.cyclic or self.kind == "warp":
            return None
        return self.ratio if self.kind == "scale" else ((1, 1), (1, 1))

    def places(self, height: int, width: int) -> Tensor:
        """The places `(h', w', 2)` of the moved cells in the untouched grid, in cells, float64 `(y, x)`."""
        rows, columns = self.size(height, width)
        y = torch.arange(rows, dtype=torch.float64)[:, None].expand(rows, columns)
        x = torch.arange(columns, dtype=torch.float64)[None, :].expand(rows, columns)
        if self.kind == "scale":
            assert self.ratio is not None
            (p, q), (r, s) = self.ratio
            return torch.stack([(y + 0.5) * q / p - 0.5, (x + 0.5) * s / r - 0.5], -1)
        if self.kind == "shift":
            assert self.cells is not None
            return torch.stack([y - self.cells[0], x - self.cells[1]], -1)
        matrix = torch.tensor(self.matrix, dtype=torch.float64)
        if self.isotropic:
            square = torch.diag(torch.tensor([width / height, 1.0], dtype=torch.float64))
            matrix[:2, :2] = torch.linalg.inv(square) @ matrix[:2, :2] @ square
        if not self.inverted:
            matrix = torch.linalg.inv(matrix)
        relative = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1, x * 0 + 1], -1)
        points = relative @ matrix.mT
        points = points[..., :2] / points[..., 2:].clamp_min(1e-6)
        return torch.stack(
            [
                (points[..., 1] + 1) / 2 * height - 0.5,
                (points[..., 0] + 1) / 2 * width - 0.5,
            ],
            -1,
        )

    def config(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in values.items() if value not in (None, False)}

    @classmethod
    def of(cls, config: dict[str, Any]) -> Geometry:
        """What `config` wrote."""

        def frozen(value: Any) -> Any:
            return tuple(map(frozen, value)) if isinstance(value, list) else value

        return cls(**{name: frozen(value) for name, value in config.items()})


def window_of(places: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """The first cell of the window around every place, and the place relative to the window's middle."""
    size = torch.tensor(kernel, dtype=torch.float64)
    start = torch.ceil(places - size / 2 - 1e-9)
    return start.long(), places - (start + (size - 1) / 2)


@dataclass(frozen=True)
class _Plan:
    """How the cells of a result are made; a cell that four phases share has four rows, `h' w'` apart.

    Attributes:
        index: which cells of the flat, padded grid every window holds, `(N, wy * wx)`.
        phase: whose filter it gets, `(N,)`.
        share: of what comes out of it in the cell, `(N,)`.
        size: `(h', w')`.
    """

    index: Tensor
    phase: Tensor
    share: Tensor
    size: tuple[int, int]


class PhaseOperator(LatentOperator):
    r"""Every cell of the new grid is a linear map of the window of old cells around its place.

    The map depends on the *phase*, the place relative to the window's middle: scaling by 2 has two phases
    along an axis, by 3/4 three, a shift one. A rotation has all of them: the places of a lattice have
    a map each, and a cell between four of them blends what each of these makes of its own window.

    Args:
        channels: channels of the result.
        kernel: sides of the window in cells, odd or even.
        geometry: where the new cells lie.
        phases: the phases that have a filter, `(P, 2)`, `(y, x)` in cells.
        spread: how far, in cells, a phase may be from the nearest of them.
        blended: whether a cell between the phases, which are then a square lattice, blends what the four
            around it make; else the nearest of them makes it.
        inputs: channels of the latent, those of the result by default.
        border: whether a channel of ones lies beside the zero-padded latent.
        magnitude: whether `|z|` lies beside `z`.
    """

    kind = "phases"
    moves_grid = True
    phases: Tensor

    def __init__(
        self,
        channels: int,
        kernel: Kernel,
        geometry: Geometry,
        phases: Tensor,
        spread: float = _NEAR,
        *,
        inputs: int | None = None,
        border: bool = True,
        magnitude: bool = False,
        blended: bool = False,
    ) -> None:
        super().__init__()
        self.blended = blended
        self.channels, self.kernel, self.geometry = channels, tuple(kernel), geometry
        self.inputs, self.spread = inputs or channels, spread
        self.border, self.magnitude = border and not geometry.cyclic, magnitude
        entries = self.planes * math.prod(kernel)
        self.register_buffer("phases", phases.detach().clone().float())  # a head has its own
        zeros = torch.zeros(len(phases), channels, entries)
        self.weight = nn.Parameter(zeros, requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(len(phases), channels), requires_grad=False)
        self._plans: dict[tuple[int, int, bool], _Plan] = {}

    @property
    def takes(self) -> int:
        return self.inputs

    @property
    def planes(self) -> int:
        """Channels that a window is cut from: the latent's, their magnitudes, and ones."""
        return self.inputs * (1 + self.magnitude) + self.border

    def head(self, channels: int) -> PhaseOperator:
        made = PhaseOperator(
            self.channels,
            tuple(min(size, 3 + (size + 1) % 2) for size in self.kernel),
            self.geometry,
            self.phases,
            self.spread,
            inputs=channels,
            border=False,
            blended=self.blended,
        )
        return made

    def config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "channels": self.channels,
            "inputs": self.inputs,
            "kernel_size": list(self.kernel),
            "geometry": self.geometry.config(),
            "phases": len(self.phases),
            "spread": self.spread,
            "border": self.border,
            "magnitude": self.magnitude,
            "blended": self.blended,
        }

    def windows(self, cells: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Windows `(B, h' w', planes * wy * wx)`, the nearest phase `(h' w')` of each, and `(h', w')`."""
        plan = self._plan(*cells.shape[-2:], blended=False)
        return self._cut(self._padded(cells), plan.index), plan.phase, plan.size

    def at_border(self, cells: Tensor) -> Tensor:
        """Which cells are told from beyond the border of a latent `(B, c, h, w)`, bool `(h', w')`."""
        plan = self._plan(*cells.shape[-2:], blended=self.blended)
        tall, wide = self.kernel
        inside = F.pad(torch.ones(cells.shape[-2:]), [wide, wide, tall, tall]).flatten()
        beyond = (inside[plan.index] == 0).any(-1)
        return beyond.view(-1, *plan.size).any(0)

    def _padded(self, cells: Tensor) -> Tensor:
        """Everything that windows are cut from, `(B, planes, (h + 2 wy) (w + 2 wx))`."""
        tall, wide = self.kernel
        return F.pad(self._beside(cells), [wide, wide, tall, tall]).flatten(2)

    def _cut(self, padded: Tensor, index: Tensor) -> Tensor:
        """The windows `(B, N, planes * wy * wx)` that an index `(N, wy * wx)` tells."""
        cut = padded.index_select(2, index.flatten().to(padded.device))
        return cut.reshape(*cut.shape[:2], *index.shape).transpose(1, 2).flatten(2)

    def _beside(self, cells: Tensor) -> Tensor:
        """The planes that windows are cut from, `(B, planes, h, w)`."""
        planes = [cells, *([cells.abs()] if self.magnitude else [])]
        if self.border:
            planes.append(torch.ones_like(cells[:, :1]))
        return torch.cat(planes, 1)

    def _plan(self, height: int, width: int, *, blended: bool) -> _Plan:
        key = (height, width, blended)
        if key not in self._plans:
            tall, wide = self.kernel
            places = self.geometry.places(height, width)
            if blended:
                start, phase, share = self._between(places.flatten(0, 1))
            else:
                start, offsets = window_of(places.flatten(0, 1), self.kernel)
                phase = self._nearest(offsets, height, width)
                share = torch.ones(len(phase), dtype=places.dtype)
            y, x = start[:, :1].clamp(-tall, height), start[:, 1:].clamp(-wide, width)
            y, x = y + torch.arange(tall), x + torch.arange(wide)
            if self.geometry.cyclic:
                y, x = y % height, x % width
            flat = (y + tall)[:, :, None] * (width + 2 * wide) + (x + wide)[:, None, :]
            size = (places.shape[0], places.shape[1])
            self._plans[key] = _Plan(flat.flatten(1), phase, share, size)
        return self._plans[key]

    def _between(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For the four places of the lattice around each: their window's first cell, phase and share."""
        bins = math.isqrt(len(self.phases))
        middle = (torch.tensor(self.kernel, dtype=torch.float64) - 1) / 2
        steps = (places - middle + 0.5) * bins - 0.5  # of the lattice
        low = steps.floor()
        above = steps - low
        starts, phases, shares = [], [], []
        for corner in torch.cartesian_prod(torch.arange(2), torch.arange(2)):
            node = low.long() + corner
            start = node.div(bins, rounding_mode="floor")
            of = node - start * bins
            starts.append(start)
            phases.append(of[:, 0] * bins + of[:, 1])
            shares.append(torch.where(corner == 1, above, 1 - above).prod(1))
        return torch.cat(starts), torch.cat(phases), torch.cat(shares)

    def _nearest(self, offsets: Tensor, height: int, width: int) -> Tensor:
        phases = self.phases.detach().cpu().double()
        distance = torch.cdist(offsets, phases, p=float("inf"))
        nearest = distance.min(1)
        if float(nearest.values.max()) > self.spread + 1e-4:
            raise InputError(
                f"a latent of {height}x{width} cells needs phases that this operator was not fitted for; "
                "fit it at this resolution."
            )
        return nearest.indices

    def apply_batch(self, cells: Tensor) -> Tensor:
        tile = self.geometry.tile
        if tile is not None:
            return self._convolved(cells, tile)
        plan = self._plan(*cells.shape[-2:], blended=self.blended)
        padded, weight, bias = self._padded(cells), self.weight.to(cells), self.bias.to(cells)
        order = plan.phase.argsort(stable=True)
        counts = torch.bincount(plan.phase, minlength=len(weight)).tolist()
        parts = [
            F.linear(self._cut(padded, plan.index[rows]), weight[p], bias[p])
            for p, rows in enumerate(torch.split(order, counts))
            if len(rows)
        ]
        count = math.prod(plan.size)
        found = torch.cat(parts, 1) * plan.share[order].to(cells)[:, None]
        moved = found.new_zeros(len(cells), count, found.shape[-1])
        moved = moved.index_add(1, (order % count).to(cells.device), found)
        return moved.transpose(1, 2).reshape(len(cells), -1, *plan.size)

    def _convolved(self, cells: Tensor, tile: tuple[tuple[int, int], tuple[int, int]]) -> Tensor:
        """The same where windows repeat: a convolution for every place in the tile of new cells."""
        (up, down), (right, left) = tile
        (tall, wide), (height, width) = self.kernel, cells.shape[-2:]
        new = self.geometry.size(height, width)
        rows, columns = new[0] // up, new[1] // right
        places = self.geometry.places(down, left).flatten(0, 1)
        starts, offsets = window_of(places, self.kernel)
        phase = self._nearest(offsets, height, width)
        # Windows that see nothing need not see it from afar.
        reach = (down * (rows - 1) + tall, left * (columns - 1) + wide)
        starts = torch.stack(
            [starts[:, 0].clamp(-reach[0], height), starts[:, 1].clamp(-reach[1], width)], 1
        )
        low, high = starts.amin(0).tolist(), starts.amax(0).tolist()
        above, before = max(0, -low[0]), max(0, -low[1])
        below = max(0, high[0] + reach[0] - height)
        behind = max(0, high[1] + reach[1] - width)
        padded = F.pad(self._beside(cells), [before, behind, above, below])
        weight, bias = self.weight.to(cells), self.bias.to(cells)
        weight = weight.reshape(*weight.shape[:2], self.planes, tall, wide)
        parts = []
        for (y, x), one in zip(starts.tolist(), phase.tolist(), strict=True):
            part = padded[
                ...,
                y + above : y + above + reach[0],
                x + before : x + before + reach[1],
            ]
            parts.append(F.conv2d(part, weight[one], bias[one], stride=(down, left)))
        moved = torch.stack(parts, -1).reshape(*parts[0].shape, up, right)
        return moved.permute(0, 1, 2, 4, 3, 5).reshape(len(cells), -1, *new)
