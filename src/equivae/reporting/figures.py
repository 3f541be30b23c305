"""The pictures of a report as figures: the four panels, and the latents in colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor

from equivae.evaluation.results import Panel
from equivae.reporting.charts import AFTER, BEFORE, INK, MUTED, draw_losses
from equivae.reporting.numbers import fixed
from equivae.reporting.text import any_letters, figure_text
from equivae.units import psnr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "draw_latents",
    "draw_losses",
    "draw_panels",
    "error_of",
    "laid_out",
    "latent_colours",
    "show_picture",
]


def draw_panels(after: Sequence[Panel], before: Sequence[Panel] = ()) -> Figure:
    """Original, reconstruction, decode of the moved latent, and that decode moved back.

    One row per image and VAE; `before`, when given, pairs with `after` row by row. All panels have to be
    of one transform. The PSNR against the original stands under the pictures.
    """
    rows = _rows(after, before)
    titles = [
        "original",
        "reconstruction",
        f"latent under {figure_text(after[0].transform)},\ndecoded",
    ]
    if after[0].back is not None:
        titles.append("that decode\nmoved back")
    figure, grid = _grid(len(rows), titles)
    for axes, (label, colour, panel) in zip(grid, rows, strict=True):
        pictures = [panel.original, panel.reconstruction, panel.moved, panel.back]
        for column, (axis, picture) in enumerate(zip(axes, pictures, strict=False)):
            assert picture is not None
            show_picture(axis, picture)
            if column in (1, 3):
                error = error_of(panel, picture)
                axis.set_xlabel(f"{fixed(error, 1)} dB", fontsize=10, color=MUTED)
        axes[0].set_ylabel(label, fontsize=11, color=colour, fontweight="bold")
        if panel.rank and panel.rank not in label:
            axes[0].set_xlabel(
                f"{figure_text(panel.image)}, {panel.rank}", fontsize=10, color=MUTED
            )
    return laid_out(figure)


def draw_latents(after: Sequence[Panel], before: Sequence[Panel] = ()) -> Figure:
    """Latents in colour: of the image, that moved, and of the moved image.

    In a VAE that is equivariant on its encoder's side, the last two look the same. The three colours are
    the principal components of the latents, one basis for each VAE. All panels have to be of one transform.
    """
    rows = _rows(after, before)
    name = figure_text(after[0].transform)
    titles = ["original", "latent", f"latent\nunder {name}", f"latent of the image\nunder {name}"]
    figure, grid = _grid(len(rows), titles)
    coloured = {"": latent_colours(after), "before": latent_colours(before) if before else []}
    for i, (axes, (label, colour, panel)) in enumerate(zip(grid, rows, strict=True)):
        show_picture(axes[0], panel.original)
        place = i // 2 if before else i
        pictures = coloured["before" if before and i % 2 == 0 else ""][place]
        for axis, picture in zip(axes[1:], pictures, strict=True):
            show_picture(axis, picture, nearest=True)
        axes[0].set_ylabel(label, fontsize=11, color=colour, fontweight="bold")
    return laid_out(figure)


def latent_colours(panels: Sequence[Panel]) -> list[list[Tensor]]:
    """`E(x)`, `ρ E(x)` and `E(T x)` of every panel as colours `(3, h, w)` in [0, 1].

    The colours are the first three principal components of the channels over all panels' latents, from
    their 1st to their 99th percentile. NaN and infinite values count as 0.
    """
    kept = [[p.latent, p.moved_latent, p.encoded_moved] for p in panels]
    latents = [
        [z.nan_to_num(0.0, 0.0, 0.0) for z in row if z is not None and z.ndim == 3] for row in kept
    ]
    plain = [row[0] for row in latents if row]
    if not plain:
        return []
    cells = torch.cat([z.flatten(1) for z in plain], 1).T
    mean = cells.mean(0)
    count = min(3, cells.shape[1])
    axes = torch.linalg.svd(cells - mean, full_matrices=False).Vh[:count]
    # A component's sign is arbitrary; its largest weight is positive here.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    values = (cells - mean) @ axes.T
    low, high = (torch.quantile(values[:1_000_000], q, 0) for q in (0.01, 0.99))
    found = []
    for row in latents:
        coloured = []
        for z in row:
            flat = (z.flatten(1).T - mean) @ axes.T
            flat = ((flat - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
            colour = flat.T.reshape(count, *z.shape[-2:])
            missing = [colour[-1:]] * (3 - count)
            coloured.append(torch.cat([colour, *missing]))
        found.append(coloured)
    return found


def error_of(panel: Panel, picture: Tensor) -> float:
    """PSNR in dB of a picture against the original."""
    return psnr(float((picture - panel.original).square().mean()))


def _rows(after: Sequence[Panel], before: Sequence[Panel]) -> list[tuple[str, str, Panel]]:
    rows: list[tuple[str, str, Panel]] = []
    for i, panel in enumerate(after):
        if before:
            rows += [("before", BEFORE, before[i]), ("after", AFTER, panel)]
        else:
            rows.append((panel.rank or figure_text(panel.image), INK, panel))
    return rows


def _grid(count: int, titles: Sequence[str]) -> tuple[Figure, list[list[Axes]]]:
    from matplotlib.figure import Figure

    size = (2.6 * len(titles) + 0.4, 2.85 * count + 0.5)
    figure = Figure(figsize=size, dpi=120, facecolor="white")
    grid = figure.subplots(count, len(titles), squeeze=False)
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title, fontsize=11, color=INK)
    return figure, grid.tolist()


def laid_out(figure: Figure) -> Figure:
    """With as little space as its words leave."""
    with any_letters():
        figure.tight_layout(pad=0.6, h_pad=0.6, w_pad=0.4)
    return figure


def show_picture(axis: Axes, picture: Tensor, *, nearest: bool = False) -> None:
    """A picture `(C, H, W)` in [0, 1] without a frame."""
    array = rearrange(picture, "c h w -> h w c").nan_to_num(0.0).numpy()
    axis.imshow(
        array if array.shape[-1] == 3 else array[..., 0],
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="nearest" if nearest else "antialiased",
    )
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
