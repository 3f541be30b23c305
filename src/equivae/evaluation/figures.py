"""The pictures of a report: the four panels and the loss curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from einops import rearrange
from torch import Tensor

from equivae.evaluation.metrics import Panel, psnr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_losses", "draw_panels"]

_INK, _MUTED, _BEFORE, _AFTER = "#1f2328", "#6e7781", "#bf3989", "#0969da"


def draw_panels(after: Sequence[Panel], before: Sequence[Panel] = ()) -> Figure:
    """Original, reconstruction, decode of the moved latent, and that decode moved back.

    One row per image and VAE; `before`, when given, pairs with `after` row by row. All panels have to be
    of one transform. The PSNR against the original stands under the pictures.
    """
    from matplotlib.figure import Figure

    rows: list[tuple[str, str, Panel]] = []
    for i, panel in enumerate(after):
        if before:
            rows.append(("before", _BEFORE, before[i]))
        rows.append(("after" if before else panel.image, _AFTER if before else _INK, panel))
    titles = ["original", "reconstruction", f"latent under {after[0].transform},\ndecoded"]
    if after[0].back is not None:
        titles.append("that decode\nmoved back")
    size = (2.6 * len(titles) + 0.4, 2.85 * len(rows) + 0.5)
    figure = Figure(figsize=size, dpi=120, facecolor="white")
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, (label, colour, panel) in enumerate(rows):
        pictures = [panel.original, panel.reconstruction, panel.moved, panel.back]
        for column, (axis, picture) in enumerate(zip(grid[row], pictures, strict=False)):
            assert picture is not None
            _show(axis, picture)
            if row == 0:
                axis.set_title(titles[column], fontsize=11, color=_INK)
            if column in (1, 3):
                error = psnr(float((picture - panel.original).square().mean()))
                axis.set_xlabel(f"{error:.1f} dB", fontsize=10, color=_MUTED)
        grid[row][0].set_ylabel(label, fontsize=12, color=colour, fontweight="bold")
    figure.tight_layout(pad=0.6, h_pad=0.6, w_pad=0.4)
    return figure


def draw_losses(
    history: Sequence[dict[str, float]], by: Literal["step", "epoch"] = "step"
) -> Figure:
    """Training and validation loss against optimiser steps, or their means against epochs.

    Args:
        history: records with `step`, `epoch` and `loss` or `validation_loss`.
        by: what the horizontal axis counts.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.0, 3.8), dpi=150, facecolor="white")
    axis = figure.subplots()
    for key, label, colour in (
        ("loss", "training", _MUTED),
        ("validation_loss", "validation", _AFTER),
    ):
        places, values = _curve([record for record in history if key in record], key, by)
        if places:
            marker = "o" if by == "epoch" or key == "validation_loss" else None
            axis.plot(
                places, values, color=colour, label=label, marker=marker, markersize=4, lw=1.6
            )
    axis.set_yscale("log")
    axis.set_xlabel("epoch" if by == "epoch" else "optimiser step", color=_INK)
    axis.set_ylabel("loss, images in [-1, 1]", color=_INK)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(True, which="both", color="#d0d7de", lw=0.5)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False)
    figure.tight_layout()
    return figure


def _curve(
    records: Sequence[dict[str, float]], key: str, by: str
) -> tuple[list[float], list[float]]:
    if by == "step":
        return [record["step"] for record in records], [record[key] for record in records]
    epochs = sorted({record["epoch"] for record in records})
    means = []
    for epoch in epochs:
        values = [record[key] for record in records if record["epoch"] == epoch]
        means.append(sum(values) / len(values))
    # A validation record carries the number of epochs done, a training record that of those before.
    shift = 1 if key == "loss" else 0
    return [epoch + shift for epoch in epochs], means


def _show(axis: Axes, picture: Tensor) -> None:
    array = rearrange(picture, "c h w -> h w c").numpy()
    axis.imshow(array if array.shape[-1] == 3 else array[..., 0], cmap="gray", vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
