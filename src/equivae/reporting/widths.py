"""A figure at the width that a paper has for it: its letters stay readable, its titles do not overlap."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from equivae.errors import InputError
from equivae.options import quoted
from equivae.reporting.text import any_letters

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec
    from matplotlib.text import Text

__all__ = ["check_width", "fit_width"]

SMALLEST = 7.0
"""Points that no letter goes below, as venues ask for."""
_ROUNDS = 2  # until rows are as high as their pictures
_PART = r"[^\s_(,=]{1,12}[\s_(,=]?|[\s_(,=]"  # of a title, between which a line may end
_GAP = 0.94  # of a column's width, for the words above and below it


def check_width(width: Any) -> float:
    """`InputError` unless it is a width in inches that a figure can have."""
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 1 <= width <= 100:
        raise InputError(
            f"width must be a number of inches between 1 and 100, such as 5.5, got {quoted(width)}."
        )
    return float(width)


def fit_width(figure: Figure, width: float) -> Figure:
    """The same figure, so many inches wide: letters of at least 7 points, wrapped to their column."""
    with any_letters():
        before = figure.get_figwidth()
        scale = width / before
        figure.set_size_inches(width, figure.get_figheight() * scale)
        _set_letters(figure, scale)
        pictures = [axis for axis in figure.axes if axis.images]
        if pictures:
            _wrap(figure, pictures)
            for (
                axis
            ) in pictures:  # fills its place, else words beside a smaller picture bend the layout
                axis.set_aspect("auto")
            for _ in range(_ROUNDS):
                _close_rows(figure, pictures)
            for axis in pictures:
                axis.set_aspect("equal")
    return figure


def _set_letters(figure: Figure, scale: float) -> None:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        size = float(text.get_fontsize())
        text.set_fontsize(max(min(size, SMALLEST), min(size, size * scale)))
    for axis in figure.axes:
        for kind in ("x", "y"):  # the ticks' labels are made anew when the figure is drawn
            size = max(SMALLEST, 9 * min(scale, 1.0))
            axis.tick_params(axis=kind, labelsize=size)


def _wrap(figure: Figure, axes: list[Axes]) -> None:
    """Titles and labels onto as many lines as their column needs."""
    columns = max(place.get_gridspec().ncols for place in map(_place, axes))
    room = _GAP * figure.get_figwidth() / columns * 72
    for axis in axes:
        for text in (axis.title, axis.xaxis.label):
            if text.get_text():
                text.set_text(_lines(text, room))


def _lines(text: Text, room: float) -> str:
    """Every line of a text on as many lines as it needs to be at most so many points wide."""
    lines = text.get_text().split("\n")
    return "\n".join(_wrapped(text, line, room) for line in lines)


def _wrapped(text: Text, line: str, room: float) -> str:
    lines = [""]
    for part in re.findall(_PART, line):
        if lines[-1] and _points(text, lines[-1] + part) > room:
            lines.append("")
        lines[-1] += part
    return "\n".join(one.strip() for one in lines)


def _points(text: Text, line: str) -> float:
    assert text.figure is not None
    text.set_text(line.strip())
    return text.get_window_extent().width * 72 / text.figure.dpi


def _close_rows(figure: Figure, axes: list[Axes]) -> None:
    """Make the figure as high as its pictures and words are, without bands between them."""
    figure.tight_layout(pad=0.3, h_pad=0.4, w_pad=0.3)
    rows: dict[int, float] = {}
    for axis in axes:
        box, array = axis.get_position(original=True), axis.images[0].get_array()
        assert array is not None
        wanted = box.width * figure.get_figwidth() * array.shape[0] / array.shape[1]
        start = _place(axis).rowspan.start
        rows[start] = max(rows.get(start, -1e9), wanted - box.height * figure.get_figheight())
    figure.set_figheight(max(0.5, figure.get_figheight() + sum(rows.values())))
    figure.tight_layout(pad=0.3, h_pad=0.4, w_pad=0.3)


def _place(axis: Axes) -> SubplotSpec:
    place = axis.get_subplotspec()
    assert place is not None
    return place
