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
from equivae.evaluation.latent_metrics.lie import BORDER, FIELDS, lie_derivative
from equivae.evaluation.roundtrip import reconstruct
from equivae.reporting.numbers import fixed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Probes", "Row", "draw_rows", "flat_rows", "lie_rows", "probe"]

GAIN = 8  # of deviations from a constant
_BRIGHTEST = 0.99  # quantile of a map that is white
Row = tuple[str, list[tuple[str, Tensor]]]
"""What a row is called, and its pictures `(C, H, W)` in [0, 1] with their captions."""


@dataclass(frozen=True)
class Probes:
    """What was looked at beside the images.

    Attributes:
        flat: the flat-field test, `None` where it was not asked for.
        image: the one that the maps are of, `(C, H, W)` in [0, 1].
        lie: by move, the root mean square over the channels of the Lie derivative, `(H, W)` in [0, 1] units.
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
        maps = {name: _map(vae, batch.z, batch.output, name) for name in FIELDS}
    return Probes(flat, batch.plain[0].cpu(), maps)


def _map(vae: Autoencoder, z: Tensor, output: Tensor, name: str) -> Tensor:
    found = [lie_derivative(vae, z, output, move)[0] / 2 for move in FIELDS[name]]
    mean = torch.stack(found).square().mean((0, 1)).sqrt().cpu()
    edge = BORDER * round(output.shape[-2] / z.shape[-2])
    inside = torch.zeros_like(mean)
    inside[edge:-edge, edge:-edge] = mean[edge:-edge, edge:-edge]  # as the number counts it
    return inside


def flat_rows(probes: Mapping[str, Probes]) -> list[Row]:
    """The deviations from the constants, 8 times, around grey."""
    rows = []
    for label, one in probes.items():
        if one.flat is None:
            continue
        tiles = []
        for level, picture in zip(one.flat.levels, one.flat.pictures, strict=True):
            shown = (0.5 + GAIN * (picture - level)).clamp(0, 1)
            tiles.append((f"{round(level * 100)} % grey", shown))
        rows.append((label, tiles))
    return rows


def lie_rows(probes: Mapping[str, Probes]) -> list[Row]:
    """The maps, white where the decode follows the least; one scale for all VAEs."""
    there = {label: one for label, one in probes.items() if one.lie and one.image is not None}
    rows = []
    for label, one in there.items():
        assert one.image is not None
        tiles = [("image", one.image)]
        for name, found in one.lie.items():
            whole = torch.cat([other.lie[name].flatten() for other in there.values()])
            white = float(torch.quantile(whole[:4_000_000].nan_to_num(0.0), _BRIGHTEST))
            shown = (found / max(white, 1e-12)).clamp(0, 1)[None]
            tiles.append((f"{name}, white is {fixed(white, 3)}", shown))
        rows.append((label, tiles))
    return rows


def draw_rows(rows: Sequence[Row]) -> Figure:
    """Rows of pictures as a figure."""
    from matplotlib.figure import Figure

    from equivae.reporting.charts import INK, MUTED
    from equivae.reporting.figures import laid_out, show_picture

    most = max(len(tiles) for _, tiles in rows)
    figure = Figure(figsize=(2.4 * most + 0.4, 2.75 * len(rows) + 0.2), dpi=120, facecolor="white")
    grid = figure.subplots(len(rows), most, squeeze=False)
    for axes, (label, tiles) in zip(grid, rows, strict=True):
        axes[0].set_ylabel(label, fontsize=11, color=INK, fontweight="bold")
        for axis in axes[len(tiles) :]:
            axis.set_axis_off()
        for axis, (caption, picture) in zip(axes, tiles, strict=False):
            show_picture(axis, picture)
            axis.set_xlabel(caption, fontsize=9, color=MUTED)
    return laid_out(figure)
