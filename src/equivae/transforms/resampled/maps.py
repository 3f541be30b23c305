"""Maps of the plane with parameters: rotate, translate, zoom, shear, affine, perspective."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from equivae.errors import InputError
from equivae.transforms.base import Transform
from equivae.transforms.cells import pair
from equivae.transforms.resampled.parameters import Parameter, check_positive, columns
from equivae.transforms.warp import PaddingMode, Warp

__all__ = ["Affine", "HakuAffine", "Perspective", "Rotate", "Shear", "Translate", "Zoom"]

_CORNERS = torch.tensor([[[-1, -1], [1, -1], [1, 1], [-1, 1]]], dtype=torch.float64)


def _linear(
    aspect: float,
    *,
    angle: Parameter = 0.0,
    scale_y: Parameter = 1.0,
    scale_x: Parameter = 1.0,
    shear_y: Parameter = 0.0,
    shear_x: Parameter = 0.0,
) -> Tensor:
    """kornia's affine matrix about the centre, in relative coordinates; angles in degrees."""
    from kornia.geometry.transform import get_affine_matrix2d

    turn, sy, sx, hy, hx = columns(angle, scale_y, scale_x, shear_y, shear_x)
    origin = torch.zeros(len(turn), 2, dtype=torch.float64)
    matrix: Tensor = get_affine_matrix2d(
        origin, origin, torch.stack([sx, sy], 1), -turn, hx.deg2rad(), hy.deg2rad()
    )
    # Angles are angles where both axes have one unit: half the height.
    square = torch.diag(torch.tensor([aspect, 1.0, 1.0], dtype=torch.float64))
    relative: Tensor = torch.linalg.inv(square) @ matrix @ square
    return relative


def _moved(matrix: Tensor, y: Parameter, x: Parameter) -> Tensor:
    """`matrix`, then a move by shares of the side (a side is 2 long in relative coordinates)."""
    dy, dx = columns(y, x)
    shift = torch.eye(3, dtype=torch.float64).repeat(len(dy), 1, 1)
    shift[:, 0, 2], shift[:, 1, 2] = 2 * dx, 2 * dy
    return shift @ matrix


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Rotate(Warp):
    """A rotation about the centre, counter-clockwise as `torch.rot90`; the canvas stays.

    Args:
        angle: in degrees.
        **options: see `Warp`.

    ```python
    import torch

    import equivae

    t = equivae.get_transform("rotate", angle=30, padding_mode="reflection", cell=8)
    x = torch.rand(1, 3, 64, 64)
    assert t.pixel(x).shape == x.shape
    assert t.mask(x).shape == (64, 64)
    ```
    """

    angle: Parameter = 30.0
    registered_name = "rotate"

    def homography(self, aspect: float) -> Tensor:
        return _linear(aspect, angle=self.angle)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Translate(Warp):
    """A shift by any part of a cell. `padding_mode="circular"` lets it enter on the other side.

    Args:
        y: downwards, as a share of the height.
        x: to the right, as a share of the width.
        cells: instead of `y` and `x`, a pair (y, x) in latent cells, whole or not; what share of a side
            that is follows from `cell` and the size of the image, so that the pixel op needs `cell`.
        **options: see `Warp`.
    """

    y: Parameter = 0.0
    x: Parameter = 0.125
    cells: tuple[float, float] | None = None
    registered_name = "translate"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cells is not None:
            pair(self.cells, "cells")

    def _parameters(self) -> dict[str, Any]:
        hidden = {"cells"} if self.cells is None else {"y", "x"}
        return {k: v for k, v in super()._parameters().items() if k not in hidden}

    def _does(self) -> Mapping[str, Any]:
        unused = ("y", "x") if self.cells is not None else ()
        return {key: value for key, value in super()._does().items() if key not in unused}

    def homography(self, aspect: float) -> Tensor:
        return _moved(torch.eye(3, dtype=torch.float64)[None], self.y, self.x)

    def pixel(self, x: Tensor) -> Tensor:
        return (
            self._shares(x, self.pixels_per_cell).pixel(x)
            if self.cells is not None
            else super().pixel(x)
        )

    def latent(self, z: Tensor) -> Tensor:
        return self._shares(z, 1).latent(z) if self.cells is not None else super().latent(z)

    def carry_mask(self, x: Tensor, valid: Tensor) -> Tensor:
        if self.cells is not None:
            return self._shares(x, self.pixels_per_cell).carry_mask(x, valid)
        return super().carry_mask(x, valid)

    def _shares(self, tensor: Tensor, cell: int) -> Translate:
        assert self.cells is not None
        cells, (height, width) = pair(self.cells, "cells"), tensor.shape[-2:]
        y, x = cells[0] * cell / height, cells[1] * cell / width
        return dataclasses.replace(self, y=y, x=x, cells=None)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Zoom(Warp):
    """Scaling that keeps the size: above 1 the window grows to the whole (scale up and crop), below 1
    the whole shrinks into the window and the rest is border.

    Args:
        factor: how much larger things get.
        y: where the window lies vertically: 0 at the top, 0.5 in the middle, 1 at the bottom.
        x: where the window lies horizontally, 0 at the left.
        anisotropy: how much larger they get horizontally than vertically.
        **options: see `Warp`.
    """

    factor: Parameter = 1.5
    y: Parameter = 0.5
    x: Parameter = 0.5
    anisotropy: Parameter = 1.0
    registered_name = "zoom"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("factor", self.factor)
        check_positive("anisotropy", self.anisotropy)

    def homography(self, aspect: float) -> Tensor:
        factor, ratio, y, x = columns(self.factor, self.anisotropy, self.y, self.x)
        sy, sx = factor / ratio.sqrt(), factor * ratio.sqrt()
        # The window's place is the point that stays where it is.
        stays_y, stays_x = 2 * y - 1, 2 * x - 1
        linear = _linear(aspect, scale_y=sy, scale_x=sx)
        return _moved(linear, stays_y * (1 - sy) / 2, stays_x * (1 - sx) / 2)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Shear(Warp):
    """A shear about the centre.

    Args:
        y: vertical shear in degrees.
        x: horizontal shear in degrees.
        **options: see `Warp`.
    """

    y: Parameter = 0.0
    x: Parameter = 15.0
    registered_name = "shear"

    def homography(self, aspect: float) -> Tensor:
        return _linear(aspect, shear_y=self.y, shear_x=self.x)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Affine(Warp):
    """Shear, scale, rotation and translation about the centre, in this order.

    Args:
        angle: in degrees, counter-clockwise.
        translate_y: downwards, as a share of the height.
        translate_x: to the right, as a share of the width.
        scale: how much larger things get.
        shear_y: in degrees.
        shear_x: in degrees.
        **options: see `Warp`.
    """

    angle: Parameter = 15.0
    translate_y: Parameter = 0.0
    translate_x: Parameter = 0.1
    scale: Parameter = 0.9
    shear_y: Parameter = 0.0
    shear_x: Parameter = 10.0
    registered_name = "affine"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("scale", self.scale)

    def homography(self, aspect: float) -> Tensor:
        linear = _linear(
            aspect,
            angle=self.angle,
            scale_y=self.scale,
            scale_x=self.scale,
            shear_y=self.shear_y,
            shear_x=self.shear_x,
        )
        return _moved(linear, self.translate_y, self.translate_x)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class HakuAffine(Warp):
    r"""HakuLatent's affine map (github.com/KohakuBlueleaf/HakuLatent): `T(x)(q) = x(M q + 2 t)` with
    `M = R(angle)\, \begin{pmatrix} 1 & h_x \\ h_y & 1 \end{pmatrix}\, s`, in coordinates in which both
    sides are 2 long, whatever their lengths are.

    As there, the matrix looks up the source, so that a scale of 2 makes things smaller by 2; nothing is
    filtered where that shrinks; what lies outside is reflected, and counts in the loss. There is no inverse.

    Args:
        angle: in degrees.
        scale: how much farther apart the source is looked up.
        shear_y: `h_y`, in degrees, its radians being the entry of the matrix.
        shear_x: `h_x`, likewise.
        translate_y: as a share of the height.
        translate_x: as a share of the width.
        **options: see `Warp`.
    """

    angle: Parameter = 15.0
    scale: Parameter = 1.1
    shear_y: Parameter = 0.0
    shear_x: Parameter = 10.0
    translate_y: Parameter = 0.0
    translate_x: Parameter = 0.0
    padding_mode: PaddingMode = "reflection"
    antialias: bool = False
    registered_name = "haku_affine"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("scale", self.scale)

    def homography(self, aspect: float) -> Tensor:
        turn, scale, hy, hx, dy, dx = columns(
            self.angle,
            self.scale,
            self.shear_y,
            self.shear_x,
            self.translate_y,
            self.translate_x,
        )
        cos, sin, one = turn.deg2rad().cos(), turn.deg2rad().sin(), torch.ones_like(turn)
        rotation = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)
        shear = torch.stack([one, hx.deg2rad(), hy.deg2rad(), one], 1).view(-1, 2, 2)
        matrix = torch.eye(3, dtype=torch.float64).repeat(len(turn), 1, 1)
        matrix[:, :2, :2] = rotation @ shear * scale.view(-1, 1, 1)
        matrix[:, 0, 2], matrix[:, 1, 2] = 2 * dx, 2 * dy
        inverted: Tensor = torch.linalg.inv(matrix)
        return inverted

    @property
    def inverse(self) -> NoReturn:  # type: ignore[override]
        raise NotImplementedError(
            f"transform {self.name!r} has no inverse: what was reflected cannot be told from what was there."
        )

    def mask(self, x: Tensor) -> Tensor | None:
        return None

    def carry_mask(self, x: Tensor, valid: Tensor) -> Tensor:
        return Transform.carry_mask(self, x, valid)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Perspective(Warp):
    """A projective map, given by where the corners of the image go.

    Args:
        corners: how far each corner moves, `((y, x), ...)` in shares of the side, in the order top left,
            top right, bottom right, bottom left; or a tensor `(B, 4, 2)`.
        **options: see `Warp`.
    """

    corners: tuple[tuple[float, float], ...] | Tensor = (
        (0.15, 0.15),
        (0.0, 0.0),
        (0.0, 0.0),
        (-0.15, 0.15),
    )
    registered_name = "perspective"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._moves().shape[-2:] != (4, 2):
            raise InputError(
                f"corners must be four pairs (y, x) of shares of the side, got {self.corners!r}."
            )

    def _moves(self) -> Tensor:
        try:
            moves = torch.as_tensor(self.corners, dtype=torch.float64)
        except (TypeError, ValueError):
            return torch.empty(0, 0)
        return moves[None] if moves.ndim == 2 else moves

    def homography(self, aspect: float) -> Tensor:
        from kornia.geometry.transform import get_perspective_transform

        goal = _CORNERS + 2 * self._moves().flip(-1)
        return get_perspective_transform(_CORNERS.expand_as(goal).contiguous(), goal)  # type: ignore[no-any-return]
