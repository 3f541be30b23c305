"""The moves of a grid, and what each does to an image: the pixel side of every latent op."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["COLOURS", "MOVES", "SCALES", "Lattice", "move_image", "resolve_move"]


@dataclass(frozen=True)
class Lattice:
    """An element of the square's symmetries: a transposition first, then flips, of the last two axes."""

    transposes: bool = False
    flips_height: bool = False
    flips_width: bool = False

    def __call__(self, tensor: Tensor) -> Tensor:
        if self.transposes:
            tensor = tensor.transpose(-2, -1)
        axes = [-2] * self.flips_height + [-1] * self.flips_width
        return tensor.flip(axes) if axes else tensor

    def after(self, first: Lattice) -> Lattice:
        """`first`, then this."""
        height, width = first.flips_height, first.flips_width
        if self.transposes:
            height, width = width, height
        return Lattice(
            self.transposes != first.transposes,
            self.flips_height != height,
            self.flips_width != width,
        )

    @property
    def name(self) -> str:
        """As in `MOVES`."""
        return next(name for name, move in MOVES.items() if move == self)

    @property
    def inverse(self) -> Lattice:
        """What undoes it."""
        height, width = self.flips_height, self.flips_width
        return Lattice(
            self.transposes,
            *((width, height) if self.transposes else (height, width)),
        )


# Quarter turns go counter-clockwise, as in torch.rot90. ComfyUI's own node turns clockwise: its "90 degrees"
# is rot270 here, its "270 degrees" rot90.
MOVES = {
    "identity": Lattice(),
    "hflip": Lattice(flips_width=True),
    "vflip": Lattice(flips_height=True),
    "rot180": Lattice(flips_height=True, flips_width=True),
    "rot90": Lattice(transposes=True, flips_height=True),
    "rot270": Lattice(transposes=True, flips_width=True),
    "transpose": Lattice(transposes=True),
    "antitranspose": Lattice(transposes=True, flips_height=True, flips_width=True),
}
SCALES = {"scale 0.5": 0.5, "scale 2": 2.0}
COLOURS = ("brightness", "saturation", "greyscale")


def resolve_move(name: str) -> Lattice:
    """Of `"hflip"`, or of a product such as `"rot90@hflip"`, the last one first."""
    moved = Lattice()
    for part in reversed(name.split("@")):
        if part not in MOVES:
            raise ValueError(
                f"The latent op is for {name!r}, which these nodes cannot apply; they apply "
                f"{', '.join(MOVES)}, and what "
                "the node Fit Latent Op fits."
            )
        moved = MOVES[part].after(moved)
    return moved


def move_image(images: Tensor, name: str, amount: float = 0.5) -> Tensor:
    """Images `(B, H, W, C)` in [0, 1], as ComfyUI has them, moved, scaled or with other colours."""
    planes = images.movedim(-1, -3)
    if name in SCALES:
        factor = SCALES[name]
        size = [round(side * factor) for side in planes.shape[-2:]]
        flat = planes.reshape(-1, *planes.shape[-3:])
        moved = F.interpolate(flat.float(), size, mode="bilinear", antialias=factor < 1)
        moved = moved.reshape(*planes.shape[:-2], *size)
    elif name in COLOURS:
        moved = _recolour(planes, name, amount)
    else:
        moved = resolve_move(name)(planes)
    return moved.movedim(-3, -1).contiguous()


def _recolour(planes: Tensor, name: str, amount: float) -> Tensor:
    if name == "brightness":
        return (planes * amount).clamp(0, 1)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=planes.dtype, device=planes.device)
    grey = (planes[..., :3, :, :] * weights.view(3, 1, 1)).sum(-3, keepdim=True).expand_as(planes)
    kept = 0.0 if name == "greyscale" else amount
    return (grey + (planes - grey) * kept).clamp(0, 1)
