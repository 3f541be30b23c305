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

__all__ = ["Interpolation", "PaddingMode", "Warp", "check_option", "is_one"]

Interpolation = Literal["nearest", "bilinear", "bicubic"]
PaddingMode = Literal["zeros", "border", "reflection", "circular"]
_TOLERANCE = 1e-3  # a pixel is valid when less than this share of its value comes from outside
_OVERSAMPLE_LIMIT = 8
Self = TypeVar("Self", bound="Warp")


def check_option(what: str, value: str, kind: Any) -> None:
    if value not in get_args(kind):
        raise InputError(f"unknown {what} {value!r}.{did_you_mean(str(value), get_args(kind))}")


@dataclass(frozen=True)
class _Sampling:
    """How the pixels of one sample are looked up.

    Attributes:
        over: samples per axis and pixel.
        enlarges: whether the map makes everything larger, in every direction.
        block: the side of the squares of pixels that move as one under "nearest".
    """

    over: int
    enlarges: bool
    block: int


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
        interpolation: `"bilinear"`, `"bicubic"` or `"nearest"`, which copies latent cells: a cell lands up
            to half a cell off the map then, and the pixel op, which needs `cell`, puts its pixels there
            too (where the map enlarges, to the middle of its copies).
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
        options = {field.name for field in dataclasses.fields(Warp)}
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        values = {key: getattr(self, key) for key in usual}
        own = {key: value for key, value in values.items() if key not in options}
        shown = (key for key in usual if key in options and key != "cell")
        changed = [key for key in shown if values[key] != usual[key]]
        return own | {key: values[key] for key in changed}

    def pixel(self, x: Tensor) -> Tensor:
        return self._resample(x, self.padding_mode, self._block())

    def latent(self, z: Tensor) -> Tensor:
        return self._resample(z, self.padding_mode, 1)

    def _block(self) -> int:
        """The side of the squares of pixels that move as one: a latent cell, where those are copied."""
        return self.pixels_per_cell if self.interpolation == "nearest" else 1

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
        fine = is_one(self._resample(value, outside, self._block()))
        coarse = is_one(F.adaptive_avg_pool2d(value, cells)).float()
        coarse = is_one(self._resample(coarse, outside, 1)).float()
        return fine & F.interpolate(coarse, (height, width), mode="nearest").bool()

    def _source(self, aspect: float) -> Tensor:
        """The matrices that lead from a point of the result to its point in the source."""
        matrix = self.homography(aspect)
        return matrix if self.inverted else torch.linalg.inv(matrix)

    def _resample(self, tensor: Tensor, padding_mode: PaddingMode, block: int) -> Tensor:
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
        steps = _steps(matrix, aspect)
        ways = [_Sampling(self._oversampling(step), step < 1 - 1e-3, block) for step in steps]
        if len(set(ways)) == 1:
            sampled = self._sample(planes, matrix, padding_mode, ways[0])
        else:
            sampled = torch.empty_like(planes)
            for way in dict.fromkeys(ways):
                rows = [row for row, other in enumerate(ways) if other == way]
                some = self._sample(planes[rows], matrix[rows], padding_mode, way)
                sampled = sampled.index_copy(0, torch.tensor(rows, device=planes.device), some)
        return sampled.reshape(tensor.shape).to(tensor.dtype)

    def _oversampling(self, step: float) -> int:
        """How many samples per axis a pixel of the result needs."""
        if not self.antialias:
            return 1
        return min(_OVERSAMPLE_LIMIT, max(1, math.ceil(step - 1e-3)))

    def _sample(
        self, planes: Tensor, matrix: Tensor, padding_mode: PaddingMode, way: _Sampling
    ) -> Tensor:
        height, width = planes.shape[-2:]
        if self.interpolation == "nearest":
            grid = _copying_grid(matrix, height, width, way).to(planes)
        else:
            grid = _sampling_grid(matrix.to(planes), height * way.over, width * way.over)
        if padding_mode == "circular":
            planes, grid = _wrap(planes, grid)
        sampled = F.grid_sample(
            planes,
            grid.expand(len(planes), -1, -1, -1),
            mode=self.interpolation,
            padding_mode="zeros" if padding_mode == "circular" else padding_mode,
            align_corners=False,
        )
        return F.avg_pool2d(sampled, way.over) if way.over > 1 else sampled


def is_one(value: Tensor) -> Tensor:
    return (value - 1).abs() < _TOLERANCE


def _sampling_grid(matrix: Tensor, height: int, width: int) -> Tensor:
    """Where every pixel centre of the result lies in the source: `(B, height, width, 2)`."""
    upright = torch.eye(2, 3, dtype=matrix.dtype, device=matrix.device)[None]
    # kornia before 0.9 builds this grid between the corners, half a pixel off; torch's is right.
    centres = F.affine_grid(upright, [1, 1, height, width], align_corners=False)
    points = F.pad(centres, (0, 1), value=1.0) @ matrix.mT[:, None]
    # What lies behind the horizon of a perspective is sent far outside.
    return points[..., :2] / points[..., 2:].clamp_min(1e-6)


def _copying_grid(matrix: Tensor, height: int, width: int, way: _Sampling) -> Tensor:
    """The grid of "nearest": every sample at the centre of a pixel, float64.

    Copying cells puts them up to half a cell off the map. The pixels of a cell make that step with it,
    else the two ops would part by it. Where a map enlarges, the copies of a cell make their mean step:
    they cannot all lie where its pixels do.
    """
    over, block = way.over, way.block
    size = matrix.new_tensor([whole_cells(width, block), whole_cells(height, block)])
    coarse = _sampling_grid(matrix, height // block * over, width // block * over)
    copied = _centred(coarse, size)
    if block == 1:
        return copied
    step = copied - coarse
    if way.enlarges:
        step = _mean_of_copies(step, copied)
    elif over > 1:
        step = F.avg_pool2d(step.movedim(-1, 1), over).movedim(1, -1)
    step = step.repeat_interleave(block * over, 1).repeat_interleave(block * over, 2)
    return _centred(_sampling_grid(matrix, height * over, width * over) + step, size * block)


def _mean_of_copies(step: Tensor, copied: Tensor) -> Tensor:
    """`step` as its mean over all copies of one and the same cell; both `(B, h, w, 2)`."""
    means = []
    for steps, places in zip(step.flatten(1, 2), copied.flatten(1, 2), strict=True):
        _, which = torch.unique(places.mul(2**20).round(), dim=0, return_inverse=True)
        sums = torch.zeros_like(steps).index_add_(0, which, steps)
        means.append(sums[which] / torch.bincount(which, minlength=len(sums))[which, None])
    return torch.stack(means).reshape(step.shape)


def _centred(points: Tensor, size: Tensor) -> Tensor:
    """The centres of the pixels, of `size` (x, y) in the image, in which relative points lie."""
    # On an edge the next pixel counts, whatever the rounding of the float says.
    return (((points + 1) / 2 * size + 1e-6).floor() + 0.5) / size * 2 - 1


def _steps(matrix: Tensor, aspect: float) -> list[float]:
    """How far apart in the source, in pixels, neighbours in the result lie at most.

    For each matrix by itself, so that a sample does not depend on the others of its batch.
    """
    square = torch.diag(torch.tensor([aspect, 1.0, 1.0], dtype=matrix.dtype))
    isotropic = square @ matrix @ torch.linalg.inv(square)
    corners = [(x * aspect, y, 1.0) for x, y in ((0, 0), (-1, -1), (1, -1), (-1, 1), (1, 1))]
    most = torch.zeros(len(matrix), dtype=matrix.dtype)
    for corner in corners:
        point = isotropic @ torch.tensor(corner, dtype=matrix.dtype)
        visible = point[:, 2] > 1e-3
        if not visible.any():
            continue
        image = (point[:, :2] / point[:, 2:])[visible]
        m, w = isotropic[visible], point[visible, 2]
        jacobian = (m[:, :2, :2] - image[:, :, None] * m[:, 2:, :2]) / w[:, None, None]
        most[visible] = most[visible].maximum(torch.linalg.matrix_norm(jacobian, 2))
    result: list[float] = most.tolist()
    return result


def _wrap(planes: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """The planes with two cells of the other side around them, and the grid brought into them."""
    height, width = planes.shape[-2:]
    margin_y, margin_x = min(2, height), min(2, width)
    padded = F.pad(planes, (margin_x, margin_x, margin_y, margin_y), mode="circular")
    share = grid.new_tensor([width / (width + 2 * margin_x), height / (height + 2 * margin_y)])
    return padded, (torch.remainder(grid + 1, 2) - 1) * share
