"""An operator that keeps the law of its group exactly: a plain latent op behind an invertible network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivae.operators.modules import (
    CONVOLUTIONS,
    Kernel,
    LatentOperator,
    check_kernel_size,
    moved,
    pad_cells,
)

__all__ = ["ConjugatedOperator", "Element", "InvertibleMap"]


@dataclass(frozen=True)
class Element:
    """How one element of a group acts in the coordinates where it is plain.

    Attributes:
        move: the plain latent op, as `moved` takes it.
        order: the coordinate that each one is taken from.
        signs: +1 or -1 for each.
    """

    move: dict[str, bool]
    order: tuple[int, ...]
    signs: tuple[int, ...]

    @property
    def inverse(self) -> Element:
        """What undoes it."""
        height, width = (bool(self.move.get(key)) for key in ("flips_height", "flips_width"))
        transposes = bool(self.move.get("transposes"))
        if transposes:
            height, width = width, height
        move = {"transposes": transposes, "flips_height": height, "flips_width": width}
        order, signs = [0] * len(self.order), [1] * len(self.order)
        for i, (source, sign) in enumerate(zip(self.order, self.signs, strict=True)):
            order[source], signs[source] = i, sign
        return Element(move if self.move else {}, tuple(order), tuple(signs))

    def __call__(self, cells: Tensor) -> Tensor:
        """`(B, c, *grid)`, moved."""
        shape = (1, -1) + (1,) * (cells.ndim - 2)
        signs = torch.tensor(self.signs, dtype=cells.dtype, device=cells.device).view(shape)
        return moved(cells[:, list(self.order)] * signs, self.move)


class _Coupling(nn.Module):
    """What one half of the coordinates adds to the other: a convolution, and two with a GELU between."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, width: int) -> None:
        super().__init__()
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(kernel) - 1]
        self.kernel, self.reach = kernel, tuple(min(3, size) for size in kernel)
        # A channel of ones, zero beyond the border, tells where the border is.
        self.linear = convolution(inputs + 1, outputs, kernel, bias=False)  # type: ignore[arg-type]
        self.first = convolution(inputs + 1, width, kernel)  # type: ignore[arg-type]
        self.last = convolution(width, outputs, self.reach)  # type: ignore[arg-type]
        for layer in (self.linear, self.last):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, half: Tensor) -> Tensor:
        convolve = CONVOLUTIONS[len(self.kernel)]
        given = pad_cells(torch.cat([half, torch.ones_like(half[:, :1])], 1), self.kernel, "zeros")
        assert self.first.bias is not None
        assert self.last.bias is not None
        inner = F.gelu(convolve(given, self.first.weight.to(half), self.first.bias.to(half)))
        inner = pad_cells(inner, self.reach, "zeros")
        added = convolve(inner, self.last.weight.to(half), self.last.bias.to(half))
        found: Tensor = convolve(given, self.linear.weight.to(half)) + added
        return found


class InvertibleMap(nn.Module):
    r"""`φ`: changes of basis of the channels with couplings between them; undone in closed form.

    A coupling adds to one half of the coordinates what a small network makes of the other half, which it
    leaves as it is, so that the network need not be inverted (Dinh et al., NICE, arXiv 1410.8516). Between
    two couplings and the next two the coordinates are mixed, so that all of them meet (Kingma and Dhariwal,
    Glow, 1807.03039).

    Args:
        channels: latent channels `c`, at least 2.
        kernel: of the convolutions.
        width: channels inside a coupling.
        couplings: how many; every other one adds to the other half.
        seed: of the initial weights. The couplings start as zero and the bases as the identity in all.
    """

    def __init__(
        self, channels: int, kernel: Kernel, width: int, couplings: int, seed: int = 0
    ) -> None:
        super().__init__()
        self.origin = nn.Parameter(torch.zeros(channels))
        halves = ((channels + 1) // 2, channels // 2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.couplings = nn.ModuleList(
                _Coupling(halves[i % 2], halves[1 - i % 2], kernel, width) for i in range(couplings)
            )
            turns = [
                torch.linalg.qr(torch.randn(channels, channels))[0] for _ in range(couplings // 2)
            ]
        back = torch.eye(channels)
        for turn in turns:
            back = back @ turn.T
        self.bases = nn.ParameterList([*turns, back])

    @torch.no_grad()
    def begin(self, basis: Tensor, origin: Tensor) -> None:
        """Start with a change of basis `(c, c)` after the origin `(c,)` was taken off."""
        self.bases[0].copy_(self.bases[0].double() @ basis.double())
        self.origin.copy_(origin)

    def forward(self, cells: Tensor) -> Tensor:
        """`(B, c, *grid)` in the new coordinates."""
        cells = cells - self.origin.to(cells).view(-1, *[1] * (cells.ndim - 2))
        for i, basis in enumerate(self.bases):
            cells = _mixed(basis.to(cells), cells)
            for j in range(2 * i, min(2 * i + 2, len(self.couplings))):
                cells = self._coupled(cells, j, 1)
        return cells

    def undone(self, cells: Tensor) -> Tensor:
        """From the new coordinates back."""
        # Half precision has no inverse; the rounding of a float32 one is below that of the cells.
        precise = torch.promote_types(cells.dtype, torch.float32)
        for i, basis in reversed(list(enumerate(self.bases))):
            for j in reversed(range(2 * i, min(2 * i + 2, len(self.couplings)))):
                cells = self._coupled(cells, j, -1)
            cells = _mixed(torch.linalg.inv(basis.to(precise)).to(cells), cells)
        return cells + self.origin.to(cells).view(-1, *[1] * (cells.ndim - 2))

    def _coupled(self, cells: Tensor, j: int, sign: int) -> Tensor:
        first = (cells.shape[1] + 1) // 2
        halves = [cells[:, :first], cells[:, first:]]
        halves[1 - j % 2] = halves[1 - j % 2] + sign * self.couplings[j](halves[j % 2])
        return torch.cat(halves, 1)


class ConjugatedOperator(LatentOperator):
    r"""`φ⁻¹(S_g R_g φ(z))`: a plain latent op and an exact representation, in coordinates where they hold.

    Whatever `φ` is, the operators of a group's elements that share it compose as the elements do, up to
    rounding: an involution undoes itself, four quarter turns are the identity. It takes the untouched
    latent, since `φ` may look at the grid before it is moved.

    Args:
        element: how the element acts in these coordinates.
        channels: latent channels `c`, at least 2.
        kernel_size: odd number of cells, or one for every axis of the grid.
        width: channels inside a coupling.
        couplings: how many.
        seed: of the initial weights.
        shared: the map of another element's operator, to share it.

    ```python
    import torch

    import equivae

    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(8, size=64)
    t = equivae.fit_latent_op(
        vae, "hflip", images, 3, method="conjugation", max_train_steps=5, progress=False
    )
    z = equivae.Autoencoder(vae).encode(images).double()
    assert torch.allclose(t.latent(t.latent(z)), z)
    ```
    """

    kind = "conjugation"
    moves_grid = True

    def __init__(
        self,
        element: Element,
        channels: int,
        kernel_size: int | Kernel = 3,
        width: int = 64,
        couplings: int = 4,
        seed: int = 0,
        *,
        shared: InvertibleMap | None = None,
    ) -> None:
        super().__init__()
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        for size in kernel:
            check_kernel_size(size)
        self.element, self.channels, self.kernel, self.width = element, channels, kernel, width
        self.map = (
            InvertibleMap(channels, kernel, width, couplings, seed) if shared is None else shared
        )
        if shared is None:
            self.requires_grad_(False)

    @property
    def undoing(self) -> ConjugatedOperator:
        """The operator of the inverse element, with the same map."""
        return self.of(self.element.inverse)

    def of(self, element: Element) -> ConjugatedOperator:
        """The operator of another element, with the same map."""
        return ConjugatedOperator(element, self.channels, self.kernel, self.width, shared=self.map)

    def config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "channels": self.channels,
            "kernel_size": list(self.kernel),
            "width": self.width,
            "couplings": len(self.map.couplings),
            "move": self.element.move,
            "order": list(self.element.order),
            "signs": list(self.element.signs),
        }

    def apply_batch(self, cells: Tensor) -> Tensor:
        return self.map.undone(self.element(self.map(cells)))


def _mixed(matrix: Tensor, cells: Tensor) -> Tensor:
    """Channels `(B, c, *grid)` by a matrix."""
    return torch.einsum("ij,bj...->bi...", matrix, cells)
