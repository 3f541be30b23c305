"""One picture of what a latent op does: the target, the VAE before, the VAE after, the fitted op."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from equivae.evaluation.results import Panel
from equivae.reporting.numbers import number
from equivae.units import psnr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Overview", "Tile", "draw_overview", "overview_of"]


@dataclass(frozen=True)
class Tile:
    """A picture `(C, H, W)` in [0, 1], what it is, and its PSNR against the target, whole."""

    label: str
    picture: Tensor
    error: str = ""


@dataclass(frozen=True)
class Overview:
    """One image under one pixel op.

    Attributes:
        image: its name.
        transform: the first transform with that pixel op.
        target: the transformed image.
        decodes: what the moved latents decode to, the VAE before first.
    """

    image: str
    transform: str
    target: Tile
    decodes: list[Tile]

    @property
    def pair(self) -> tuple[Tile, Tile]:
        """The two to look at against each other: the first and the last decode, or decode and target."""
        last = self.decodes[-1] if len(self.decodes) > 1 else self.target
        return self.decodes[0], last


def overview_of(panels: Sequence[Panel], before: Sequence[Panel] = ()) -> Overview | None:
    """Of the median image under the transform whose pixel op most latent ops have; `None` without panels."""
    there = [panel for panel in panels if panel.target is not None]
    if not there:
        return None
    images = list(dict.fromkeys(panel.image for panel in there))
    image = next((p.image for p in there if p.rank == "median"), images[0])
    mine = [panel for panel in there if panel.image == image]
    groups = [[other for other in mine if _same(one.target, other.target)] for one in mine]
    group = max(groups, key=len)
    first = group[0]
    assert first.target is not None
    decodes: list[Tile] = []
    for panel in group:
        old = [p for p in before if (p.image, p.transform) == (image, panel.transform)]
        label = f"{panel.transform}, {panel.latent_op} latent op"
        if old:
            decodes.insert(len(decodes) // 2, _tile(f"before: {label}", old[0].moved, first.target))
            label = f"after: {label}"
        decodes.append(_tile(label, panel.moved, first.target))
    return Overview(image, first.transform, Tile("transformed image", first.target), decodes)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and bool(a.eq(b).all())


def _tile(label: str, picture: Tensor, target: Tensor) -> Tile:
    error = psnr(float((picture - target).square().mean()))
    said = "NaN" if math.isnan(error) else number(error, "dB")
    return Tile(label, picture, said)


def draw_overview(overview: Overview) -> Figure:
    """The target and every decode in a row, their PSNR below."""
    from matplotlib.figure import Figure

    from equivae.reporting.charts import INK, MUTED
    from equivae.reporting.figures import laid_out, show_picture
    from equivae.reporting.text import figure_text

    tiles = [overview.target, *overview.decodes]
    lines = max(tile.label.count(", ") for tile in tiles) + 1
    size = (2.7 * len(tiles) + 0.2, 3.1 + 0.2 * lines)
    figure = Figure(figsize=size, dpi=120, facecolor="white")
    (axes,) = figure.subplots(1, len(tiles), squeeze=False)
    for axis, tile in zip(axes, tiles, strict=True):
        show_picture(axis, tile.picture)
        parts = [figure_text(part) for part in tile.label.split(", ")]
        axis.set_title("\n".join(parts), fontsize=10, color=INK)
        axis.set_xlabel(tile.error, fontsize=10, color=MUTED)
    return laid_out(figure)
