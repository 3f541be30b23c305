"""The figure of a latent analysis: four panels, one function each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from equivae.evaluation.responses import LatentResponses
from equivae.reporting.text import figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["draw_analysis"]

_INK, _MUTED, _ACCENT, _WARM = "#1f2328", "#8c959f", "#0969da", "#bf3989"
_SHADES = (_MUTED, "#b6d7ff", "#6cb0ff", "#2f81f7", "#0550ae")
_PERFECT_DB = 60.0  # where only perfect decodes are to be shown
_LIKE_WHITE_NOISE = 2**0.5  # an error as large as that of two unrelated latents


def draw_analysis(found: LatentResponses) -> Figure:
    """Decoded PSNR, errors by channel, eigenvalues of the 1x1 operators, and the spectrum."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.5, 6.6), dpi=150, facecolor="white", layout="constrained")
    (decoded, channels), (signs, spectrum) = figure.subplots(2, 2)
    _draw_decoded(decoded, found)
    figure.colorbar(_draw_channels(channels, found), ax=channels, pad=0.01)
    _draw_signs(signs, found)
    _draw_spectrum(spectrum, found)
    for axis in (decoded, signs, spectrum):
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_decoded(axis: Axes, found: LatentResponses) -> None:
    names = list(found.transforms)
    sizes = list(found.transforms[names[0]].fitted_errors)
    columns = {"grid": [t.grid_psnr for t in found.transforms.values()]}
    columns |= {f"{k}x{k}": [t.fitted_psnr[k] for t in found.transforms.values()] for k in sizes}
    numbers = [found.reconstruction_psnr, *(v for values in columns.values() for v in values)]
    shown = list(filter(math.isfinite, numbers)) or [_PERFECT_DB]
    top = max(shown) + 4  # room for the legend
    for i, (label, values) in enumerate(columns.items()):
        places = [j + (i - (len(columns) - 1) / 2) * 0.16 for j in range(len(names))]
        heights = [top if value == math.inf else value for value in values]
        axis.bar(places, heights, 0.15, label=label, color=_SHADES[i])
    if math.isfinite(found.reconstruction_psnr):
        axis.axhline(
            found.reconstruction_psnr, color=_WARM, lw=1.2, ls="--", label="reconstruction"
        )
    axis.set_ylim(max(0.0, min(shown) - 3), top)
    axis.set_xticks(range(len(names)), list(map(figure_text, names)))
    axis.set_ylabel("decoded PSNR in dB")
    axis.set_title("a  What the decoder makes of the moved latent", loc="left", color=_INK)
    axis.legend(frameon=False, ncols=3, fontsize=8)


def _draw_channels(axis: Axes, found: LatentResponses) -> AxesImage:
    from matplotlib.ticker import MaxNLocator

    rows, labels = [], []
    for name, one in found.transforms.items():
        largest = list(one.fitted_errors)[-1]
        rows += [one.channel_grid_errors, one.channel_fitted_errors]
        labels += [f"{figure_text(name)}, {kind}" for kind in ("grid", f"{largest}x{largest}")]
    image = axis.imshow(rows, aspect="auto", cmap="magma_r", vmin=0, vmax=_LIKE_WHITE_NOISE)
    axis.set_yticks(range(len(rows)), labels, fontsize=8)
    axis.set_xlabel("latent channel")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title("b  Error by channel, relative to its spread", loc="left", color=_INK)
    return image


def _draw_signs(axis: Axes, found: LatentResponses) -> None:
    from matplotlib.ticker import MaxNLocator

    shown = [(n, t.signature) for n, t in found.transforms.items() if t.signature is not None]
    for i, (name, signature) in enumerate(shown):
        assert signature is not None
        label = f"{figure_text(name)}: {signature.positive} keep their sign, {signature.negative} flip it"
        values = list(signature.eigenvalues)
        axis.plot(values, "o-", ms=3, lw=1, color=(_ACCENT, _WARM, _MUTED)[i % 3], label=label)
    for level in (-1, 1):
        axis.axhline(level, color="#d0d7de", lw=1, zorder=0)
    axis.set_xlabel("eigenvalue of the 1x1 operator, in order")
    axis.set_ylabel("real part")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title("c  Signs of the involutions", loc="left", color=_INK)
    if shown:
        axis.legend(frameon=False, fontsize=8)


def _draw_spectrum(axis: Axes, found: LatentResponses) -> None:
    for values, label, colour in (
        (found.latent_spectrum, "latents", _ACCENT),
        (found.image_spectrum, "images", _MUTED),
    ):
        places = [(i + 1) / len(values) for i in range(len(values))]
        axis.semilogy(places, [max(v, 1e-12) for v in values], color=colour, label=label)
    axis.set_xlabel("frequency relative to the highest of the grid")
    axis.set_ylabel("share of the DCT energy")
    axis.set_title("d  Spectrum", loc="left", color=_INK)
    axis.legend(frameon=False, fontsize=8)
