"""Pictures of what a VAE does to constants, and of where its decoder fails to follow a move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder, measuring
from equivae.data.sources import ImageDataset
from equivae.evaluation.latent_metrics import FlatField, chosen, flat_field
from equivae.evaluation.latent_metrics.base import Level
from equivae.evaluation.latent_metrics.lie import BORDER, FIELDS, UNITS, lie_derivative
from equivae.evaluation.roundtrip import reconstruct
from equivae.reporting.numbers import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["OF_FLATS", "Probes", "Row", "Tile", "draw_rows", "flat_rows", "lie_rows", "probe"]

GAIN = 8  # of deviations from a constant
_BRIGHTEST = 0.99  # quantile of a map that is white
_ENDS = {0.0: "black", 1.0: "white"}


@dataclass(frozen=True)
class Scale:
    """What the brightness of a picture stands for: in words, what is black, and what is white."""

    name: str
    black: str
    white: str


@dataclass(frozen=True)
class Tile:
    """A picture `(C, H, W)` in [0, 1] with its caption, and what its brightness stands for."""

    caption: str
    picture: Tensor
    scale: Scale | None = None


OF_FLATS = Scale("deviation", *(f"{sign}{255 / (2 * GAIN):.0f}/255" for sign in "-+"))
Row = tuple[str, list[Tile]]
"""What a row is called, and its pictures."""


@dataclass(frozen=True)
class Probes:
    """What was looked at beside the images.

    Attributes:
        flat: the flat-field test, `None` where it was not asked for.
        image: the one that the maps are of, `(C, H, W)` in [0, 1], without the outermost cells, which the
            number does not count.
        lie: by move, the root mean square over the channels of the Lie derivative there, `(H, W)` in [0, 1]
            units.
    """

    flat: FlatField | None = None
    image: Tensor | None = None
    lie: dict[str, Tensor] = field(default_factory=dict)


def probe(vae: Autoencoder, images: ImageDataset, index: int, level: Level) -> Probes | None:
    """The pictures that a level of metrics has; `None` where it has none."""
    metrics = chosen(level)
    if "flat_field_grid" not in metrics or images[0].ndim != 3:
        return None
    with measuring(vae.module):
        flat = flat_field(vae, *images[index].shape[-2:])
        if "lee_rotation" not in metrics:
            return Probes(flat)
        batch = reconstruct(vae, images[index][None].to(vae.device, vae.dtype))
        if min(batch.z.shape[-2:]) <= 2 * BORDER:
            return Probes(flat)
        maps = {name: _map(vae, batch.z, batch.output, name) for name in FIELDS}
        return Probes(flat, _inside(batch.plain[0].cpu(), batch.z), maps)


def _map(vae: Autoencoder, z: Tensor, output: Tensor, name: str) -> Tensor:
    found = [lie_derivative(vae, z, output, move)[0] / 2 for move in FIELDS[name]]
    return _inside(torch.stack(found).square().mean((0, 1)).sqrt().cpu(), z)


def _inside(picture: Tensor, z: Tensor) -> Tensor:
    """Without the outermost cells, as the number counts it."""
    edge = BORDER * round(picture.shape[-2] / z.shape[-2])
    return picture[..., edge:-edge, edge:-edge]


def flat_rows(probes: Mapping[str, Probes]) -> list[Row]:
    """The deviations from the constants, 8 times, around grey."""
    rows = []
    for label, one in probes.items():
        if one.flat is None:
            continue
        tiles = []
        for level, picture in zip(one.flat.levels, one.flat.pictures, strict=True):
            deviation = picture - level
            said = number(float(deviation.square().mean().sqrt()), "1/255")
            constant = _ENDS.get(level, f"{round(level * 100)} % grey")
            shown = (0.5 + GAIN * deviation).clamp(0, 1)
            tiles.append(Tile(f"{constant}, off by {said}", shown, OF_FLATS))
        rows.append((label, tiles))
    return rows


def lie_rows(probes: Mapping[str, Probes]) -> list[Row]:
    """The maps, white where the decode follows the least; one scale for all VAEs."""
    there = {label: one for label, one in probes.items() if one.lie and one.image is not None}
    rows = []
    for label, one in there.items():
        assert one.image is not None
        tiles = [Tile("image", one.image)]
        for name, found in one.lie.items():
            whole = torch.cat([other.lie[name].flatten() for other in there.values()])
            white = float(torch.quantile(whole[:4_000_000].nan_to_num(0.0), _BRIGHTEST))
            shown = (found / max(white, 1e-12)).clamp(0, 1)[None]
            scale = Scale(f"per {UNITS[name]}", "0", number(white))
            tiles.append(Tile(name, shown, scale))
        rows.append((label, tiles))
    return rows


def draw_rows(rows: Sequence[Row]) -> Figure:
    """Rows of pictures as a figure, with a bar of brightness below the last picture of a column."""
    from matplotlib.figure import Figure

    from equivae.reporting.charts import INK, MUTED
    from equivae.reporting.figures import laid_out, show_picture

    most = max(len(tiles) for _, tiles in rows)
    height, width = rows[0][1][0].picture.shape[-2:]
    size = (2.4 * most + 0.4, (2.4 * height / width + 0.4) * len(rows) + 0.5)
    figure = Figure(figsize=size, dpi=120, facecolor="white")
    grid = figure.subplots(len(rows), most, squeeze=False)
    for place, (axes, (label, tiles)) in enumerate(zip(grid, rows, strict=True), 1):
        axes[0].set_ylabel(label, fontsize=11, color=INK, fontweight="bold")
        for axis in axes[len(tiles) :]:
            axis.set_axis_off()
        for axis, tile in zip(axes, tiles, strict=False):
            show_picture(axis, tile.picture)
            axis.set_title(tile.caption, fontsize=9, color=INK)
            if tile.scale is not None and place == len(rows):
                _bar(axis, tile.scale, MUTED)
    return laid_out(figure)


def _bar(axis: Axes, scale: Scale, colour: str) -> None:
    bar = axis.inset_axes((0.0, -0.07, 1.0, 0.035))
    ramp = torch.linspace(0, 1, 256)[None].numpy()
    bar.imshow(ramp, cmap="gray", aspect="auto", extent=(0, 1, 0, 1))
    bar.set_yticks([])
    bar.set_xticks([0, 0.5, 1], [scale.black, scale.name, scale.white], fontsize=8, color=colour)
    bar.tick_params(length=0, pad=2)
    left, _, right = bar.get_xticklabels()
    left.set_horizontalalignment("left")
    right.set_horizontalalignment("right")
    for spine in bar.spines.values():
        spine.set_edgecolor(colour)
        spine.set_linewidth(0.5)
