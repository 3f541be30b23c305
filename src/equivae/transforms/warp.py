"""The core of every resampled transform: one continuous map, sampled on the pixel and the latent grid."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from equivae.errors import InputError, did_you_mean
from equivae.transforms.cells import whole_cells
from equivae.transforms.placing import CellTransform
from equivae.transforms.spelling import spell

__all__ = ["Interpolation", "PaddingMode", "Warp", "check_option"]

Interpolation = Literal["nearest", "bilinear", "bicubic"]
PaddingMode = Literal["zeros", "border", "reflection", "circular"]
_TOLERANCE = 1e-3  # a pixel is valid when less than this share of its value comes from outside
_OVERSAMPLE_LIMIT = 8
Self = TypeVar("Self", bound="Warp")


def check_option(what: str, value: str, kind: Any) -> None:
    if value not in get_args(kind):
        raise InputError(f"unknown {what} {value!r}.{did_you_mean(str(value), get_args(kind))}")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Warp(CellTransform):
    r"""A projective map of the image plane, resampled; the size stays.

    The map `m` takes a point of the source to a point of the result. Coordinates are relative to the
    image: the origin is its centre, `x` runs to the right and `y` down, the edges are at -1 and 1, and
    values sit at the centres of pixels and of latent cells (`align_corners=False`). So one map holds
    for both grids, whatever the VAE's factor, and `T(x)(q) = x(m^{-1} q)`, likewise `ρ`.

    Where it scales down, several samples per output pixel are averaged (supersampling), so that an
    area is averaged wherever the map shrinks it, in its direction.

    Args:
        interpolation: `"bilinear"`, `"bicubic"` or `"nearest"`.
        padding_mode: what lies outside: `"zeros"`, `"border"`, `"reflection"` (about the edge), or
            `"circular"`, under which nothing does and the mask is `None`.
        antialias: supersample where the map scales down.
        cell: pixels per latent cell, the VAE's factor, which the mask needs; see `Transform.at_factor`.
        inverted: apply the inverse map.

    The mask holds where the footprint of the interpolation kernel lies inside, on the pixel grid and on
    the latent grid: a latent cell that reaches outside makes all `cell x cell` pixels of it invalid.

    Ops take `(..., H, W)`, the first axis the batch if there are four or more; half precision is
    resampled in float32. Raises `InputError` for a tensor of another batch size than it was drawn for.
    """

    interpolation: Interpolation = "bilinear"
    padding_mode: PaddingMode = "zeros"
    antialias: bool = True
    inverted: bool = False
    exact = False
    layouts = ("image", "video")
    registered_name = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("interpolation", self.interpolation, Interpolation)
        check_option("padding_mode", self.padding_mode, PaddingMode)

    @abstractmethod
    def homography(self, aspect: float) -> Tensor:
        """`m` as matrices `(B or 1, 3, 3)`, float64, on homogeneous `(x, y, 1)`; `aspect = W / H`."""

    @property
    def name(self) -> str:  # type: ignore[override]
        return spell(self.registered_name, **self._parameters())

    def _parameters(self) -> dict[str, Any]:
        """What the name shows: the parameters of the map, and the options that are not the default."""
        options = {field.name: field.default for field in dataclasses.fields(Warp)}
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        own = {key: value for key, value in values.items() if key not in options}
        changed = {k: v for k, v in options.items() if k != "cell" and values[k] != v}
        return own | {key: values[key] for key in changed}

    def pixel(self, x: Tensor) -> Tensor:
        return self._resample(x, self.padding_mode)

    def latent(self, z: Tensor) -> Tensor:
        return self._resample(z, self.padding_mode)

    @property
    def inverse(self: Self) -> Self:
        return dataclasses.replace(self, inverted=not self.inverted)

    def mask(self, x: Tensor) -> Tensor | None:
        if self.padding_mode == "circular":
            return None
        inside = torch.ones(1, 1, *x.shape[-2:], dtype=torch.bool, device=x.device)
        mask = self.carry_mask(x, inside)
        return mask[0, 0] if mask.shape[0] == 1 else mask

    def carry_mask(self, x: Tensor, valid: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        cells = whole_cells(height, self.pixels_per_cell), whole_cells(width, self.pixels_per_cell)
        drawn = self._source(1.0).shape[0]
        value = valid.float().expand(max(drawn, valid.shape[0] if valid.ndim > 2 else 1), 1, -1, -1)
        outside: PaddingMode = "circular" if self.padding_mode == "circular" else "zeros"
        fine = _is_one(self._resample(value, outside))
        coarse = _is_one(F.adaptive_avg_pool2d(value, cells)).float()
        coarse = _is_one(self._resample(coarse, outside)).float()
        return fine & F.interpolate(coarse, (height, width), mode="nearest").bool()

    def _source(self, aspect: float) -> Tensor:
        """The matrices that lead from a point of the result to its point in the source."""
        matrix = self.homography(aspect)
        return matrix if self.inverted else torch.linalg.inv(matrix)

    def _resample(self, tensor: Tensor, padding_mode: PaddingMode) -> Tensor:
        height, width = tensor.shape[-2:]
        aspect = width / height
        matrix = self._source(aspect)
        batch = tensor.shape[0] if tensor.ndim > 3 else 1
        if matrix.shape[0] not in (1, batch):
            raise InputError(
                f"transform {self.name!r} was drawn for {matrix.shape[0]} samples, got {batch}; draw "
                "after selecting the samples."
            )
        # Frames of a video move alike: they are channels to the sampler.
        planes = tensor.reshape(batch, -1, height, width)
        if planes.dtype in (torch.float16, torch.bfloat16):
            planes = planes.float()
        over = _oversampling(matrix, aspect) if self.antialias else 1
        grid = _sampling_grid(matrix.to(planes), height * over, width * over)
        if padding_mode == "circular":
            planes, grid = _wrap(planes, grid)
        sampled = F.grid_sample(
            planes,
            grid.expand(batch, -1, -1, -1),
            mode=self.interpolation,
            padding_mode="zeros" if padding_mode == "circular" else padding_mode,
            align_corners=False,
        )
        if over > 1:
            sampled = F.avg_pool2d(sampled, over)
        return sampled.reshape(tensor.shape).to(tensor.dtype)


def _is_one(value: Tensor) -> Tensor:
    return (value - 1).abs() < _TOLERANCE


def _sampling_grid(matrix: Tensor, height: int, width: int) -> Tensor:
    """Where every pixel centre of the result lies in the source: `(B, height, width, 2)`."""
    upright = torch.eye(2, 3, dtype=matrix.dtype, device=matrix.device)[None]
    # kornia before 0.9 builds this grid between the corners, half a pixel off; torch's is right.
    centres = F.affine_grid(upright, [1, 1, height, width], align_corners=False)
    points = F.pad(centres, (0, 1), value=1.0) @ matrix.mT[:, None]
    # What lies behind the horizon of a perspective is sent far outside.
    return points[..., :2] / points[..., 2:].clamp_min(1e-6)


def _oversampling(matrix: Tensor, aspect: float) -> int:
    """How many samples per axis an output pixel needs: how far apart the source points lie at most."""
    square = torch.diag(torch.tensor([aspect, 1.0, 1.0], dtype=matrix.dtype))
    isotropic = square @ matrix @ torch.linalg.inv(square)
    corners = [(x * aspect, y, 1.0) for x, y in ((0, 0), (-1, -1), (1, -1), (-1, 1), (1, 1))]
    most = 1.0
    for corner in corners:
        point = isotropic @ torch.tensor(corner, dtype=matrix.dtype)
        visible = point[:, 2] > 1e-3
        if not visible.any():
            continue
        image = (point[:, :2] / point[:, 2:])[visible]
        m, w = isotropic[visible], point[visible, 2]
        jacobian = (m[:, :2, :2] - image[:, :, None] * m[:, 2:, :2]) / w[:, None, None]
        most = max(most, float(torch.linalg.matrix_norm(jacobian, 2).max()))
    return min(_OVERSAMPLE_LIMIT, math.ceil(most - 1e-3))


def _wrap(planes: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """The planes with two cells of the other side around them, and the grid brought into them."""
    height, width = planes.shape[-2:]
    margin_y, margin_x = min(2, height), min(2, width)
    padded = F.pad(planes, (margin_x, margin_x, margin_y, margin_y), mode="circular")
    share = grid.new_tensor([width / (width + 2 * margin_x), height / (height + 2 * margin_y)])
    return padded, (torch.remainder(grid + 1, 2) - 1) * share
