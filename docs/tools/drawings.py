"""Draw the docs' diagrams as SVG, each for a light and for a dark page.

    python docs/tools/drawings.py

The fundamental domains are computed by the library, the levels of the ladder come from
benchmarks/results/latent_operators.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import equivae
from equivae.symmetry import domain_weights

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
FONT = "font-family='system-ui, sans-serif'"


@dataclass(frozen=True)
class Colours:
    """One page's colours: text, text on a strong colour, faint lines, a quiet fill, three that stand out."""

    ink: str
    on: str
    faint: str
    fill: str
    blue: str
    pink: str
    green: str


LIGHT = Colours("#1f2328", "#ffffff", "#8c959f", "#eaeef2", "#0969da", "#bf3989", "#1a7f37")
DARK = Colours("#e6edf3", "#0d1117", "#8b949e", "#30363d", "#58a6ff", "#f778ba", "#3fb950")


def text(
    x: float, y: float, words: str, colour: str, size: float = 14, anchor: str = "middle"
) -> str:
    return (
        f"<text x='{x:g}' y='{y:g}' fill='{colour}' font-size='{size:g}' "
        f"text-anchor='{anchor}' {FONT}>{words}</text>"
    )


def box(x: float, y: float, width: float, height: float, fill: str, line: str = "none") -> str:
    return (
        f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='4' fill='{fill}' "
        f"stroke='{line}' stroke-width='1.5'/>"
    )


def arrow(x1: float, y1: float, x2: float, y2: float, colour: str, dashed: bool = False) -> str:
    dash = " stroke-dasharray='5 4'" if dashed else ""
    return (
        f"<line x1='{x1:g}' y1='{y1:g}' x2='{x2:g}' y2='{y2:g}' stroke='{colour}' "
        f"stroke-width='2'{dash} marker-end='url(#{colour[1:]})'/>"
    )


def svg(width: float, height: float, body: str, colours: Colours) -> str:
    heads = "".join(
        f"<marker id='{c[1:]}' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' "
        f"markerHeight='7' orient='auto'><path d='M0 0 10 5 0 10z' fill='{c}'/></marker>"
        for c in (colours.ink, colours.faint, colours.blue, colours.pink, colours.green)
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' "
        f"width='{width:g}' height='{height:g}'><defs>{heads}</defs>{body}</svg>\n"
    )


def glyph(x: float, y: float, side: float, c: Colours, turned: bool = False) -> str:
    """A patch that shows which way up it is: an F, upright or turned by 180° about its centre."""
    middle = f"{x + side / 2:g} {y + side / 2:g}"
    turn = f" transform='rotate(180 {middle})'" if turned else ""
    u = side / 10
    stem = f"<path d='M{x + 3 * u:g} {y + 8 * u:g}V{y + 2 * u:g}H{x + 7.4 * u:g}M{x + 3 * u:g} "
    stem += (
        f"{y + 5 * u:g}H{x + 6.4 * u:g}' fill='none' stroke='{c.ink}' stroke-width='{u * 1.3:g}'/>"
    )
    return box(x, y, side, side, c.fill, c.faint) + f"<g{turn}>{stem}</g>"


def vector(x: float, y: float, values: list[float], c: Colours, colour: str) -> str:
    """A cell's channels as bars about a zero line."""
    parts = [f"<line x1='{x:g}' y1='{y:g}' x2='{x + 64:g}' y2='{y:g}' stroke='{c.faint}'/>"]
    for place, value in enumerate(values):
        top = y - max(value, 0) * 26
        parts.append(
            f"<rect x='{x + 4 + 15 * place:g}' y='{top:g}' width='11' height='{abs(value) * 26:g}' "
            f"fill='{colour}'/>"
        )
    return "".join(parts)


def square(c: Colours) -> str:
    """The law as a commuting square."""
    nodes = {"x": (60, 50), "z": (330, 50), "Tx": (60, 210), "ρz": (330, 210)}
    labels = {"x": "image x", "z": "latent z", "Tx": "T(x)", "ρz": "ρ(z)"}
    parts = []
    for key, (x, y) in nodes.items():
        parts += [box(x - 50, y - 24, 100, 48, c.fill, c.faint)]
        parts += [text(x, y + 5, labels[key], c.ink, 15)]
    parts += [arrow(112, 50, 276, 50, c.ink), text(195, 40, "encode E", c.ink)]
    parts += [arrow(60, 76, 60, 184, c.blue), text(70, 135, "pixel op T", c.blue, anchor="start")]
    parts += [arrow(330, 76, 330, 184, c.blue)]
    parts += [text(320, 135, "latent op ρ", c.blue, anchor="end")]
    parts += [arrow(278, 201, 114, 201, c.pink), text(195, 191, "decode D", c.pink)]
    parts += [arrow(112, 221, 276, 221, c.green), text(195, 243, "encode E", c.green)]
    return svg(390, 260, "".join(parts), c)


def grid_move(c: Colours) -> str:
    """Why the plain latent op loses information: one vector for a patch and for its turned twin."""
    signs = [0.8, -0.5, 0.6, 0.9]
    flipped = [0.8, -0.5, -0.6, -0.9]
    parts = [
        text(185, 20, "the plain latent op", c.pink, 15),
        text(545, 20, "channels may change sign", c.green, 15),
    ]
    for left, second, colour in ((0, signs, c.pink), (360, flipped, c.green)):
        for row, (turned, values) in enumerate(((False, signs), (True, second))):
            y = 40 + row * 100
            parts.append(glyph(left + 20, y, 70, c, turned))
            parts.append(arrow(left + 98, y + 35, left + 138, y + 35, c.ink))
            parts.append(vector(left + 146, y + 35, values, c, colour))
            parts.append(arrow(left + 218, y + 35, left + 258, y + 35, c.ink))
        if colour == c.pink:
            parts.append(box(left + 266, 90, 70, 70, c.fill, c.faint))
            parts.append(text(left + 301, 137, "?", c.pink, 38))
            parts.append(text(left + 178, 245, "the same vector twice:", c.ink))
            parts.append(text(left + 178, 263, "the decoder cannot know which way up", c.ink))
        else:
            parts.append(glyph(left + 266, 40, 70, c))
            parts.append(glyph(left + 266, 140, 70, c, turned=True))
            parts.append(text(left + 178, 245, "two vectors:", c.ink))
            parts.append(text(left + 178, 263, "the last two channels say which", c.ink))
    return svg(720, 276, "".join(parts), c)


def domains(c: Colours) -> str:
    """The fundamental domain of each group on an 8x8 grid, as the library computes it."""
    groups = ("c2", "hflip", "d2", "c4", "d4")
    cell, cells, gap = 15, 8, 24
    side = cell * cells
    parts = []
    for place, name in enumerate(groups):
        group = (
            equivae.get_group(name)
            if name in equivae.list_groups()
            else equivae.Group("hflip", [equivae.get_transform(t) for t in ("identity", "hflip")])
        )
        left = 10 + place * (side + gap)
        parts.append(text(left + side / 2, 18, name, c.ink, 15))
        weights = domain_weights(group, cells, cells, "fundamental-domain")
        for y in range(cells):
            for x in range(cells):
                weight = float(weights[y, x])
                fill = c.blue if weight == 1 else c.green if weight > 0 else c.fill
                parts.append(
                    f"<rect x='{left + x * cell + 1:g}' y='{28 + y * cell + 1:g}' width='{cell - 2}' "
                    f"height='{cell - 2}' rx='2' fill='{fill}'/>"
                )
    return svg(10 + len(groups) * (side + gap) - gap + 10, 36 + side, "".join(parts), c)


def seam(c: Colours) -> str:
    """How the symmetrized latent is made for c2: the lower half is the upper half of the turned image."""
    parts = [glyph(20, 40, 110, c), text(75, 30, "image x", c.ink)]
    parts += [glyph(20, 190, 110, c, turned=True), text(75, 180, "turned, T(x)", c.ink)]
    for y, label in ((40, "E(x)"), (190, "E(T(x))")):
        parts += [arrow(140, y + 55, 190, y + 55, c.ink)]
        parts += [box(200, y, 110, 110, c.fill, c.faint), text(255, y - 10, label, c.ink)]
    parts += [box(200, 40, 110, 55, c.blue), box(200, 190, 110, 55, c.pink)]
    parts += [arrow(320, 68, 400, 110, c.blue)]
    parts += [
        arrow(320, 218, 400, 190, c.pink),
        text(330, 250, "turned by 180°", c.pink, 13, "start"),
    ]
    parts += [text(465, 80, "E'(x)", c.ink), box(410, 90, 110, 55, c.blue)]
    parts += [box(410, 145, 110, 55, c.pink)]
    parts += [text(465, 122, "as upright", c.on, 13), text(465, 177, "as turned", c.on, 13)]
    return svg(560, 312, "".join(parts), c)


def ladder(c: Colours) -> str:
    """Reconstruction, fitted and plain latent op on one scale: what the gap is."""
    content = json.loads((ROOT / "benchmarks/results/latent_operators.json").read_text())
    row = next(r for r in content["fit"] if (r["vae"], r["transform"]) == ("taef2", "rot180"))
    levels = [
        ("latent turned, decoded", row["grid_move_psnr"], c.pink),
        ("with a fitted latent op", row["fitted_psnr"], c.blue),
        ("reconstruction", row["reconstruction_psnr"], c.green),
    ]
    low, high, left, width = 16.0, 30.0, 30.0, 620.0

    def place(value: float) -> float:
        return left + (value - low) / (high - low) * width

    y = 78.0
    parts = [
        f"<line x1='{left}' y1='{y}' x2='{left + width}' y2='{y}' stroke='{c.faint}' stroke-width='2'/>"
    ]
    for tick in range(int(low), int(high) + 1, 2):
        parts.append(
            f"<line x1='{place(tick):g}' y1='{y}' x2='{place(tick):g}' y2='{y + 6}' stroke='{c.faint}'/>"
        )
        parts.append(
            text(place(tick), y + 22, f"{tick}" + (" dB" if tick == high else ""), c.faint, 12)
        )
    for order, (label, value, colour) in enumerate(levels):
        top = y - (44 if order == 2 else 22)
        parts.append(
            f"<line x1='{place(value):g}' y1='{top + 4:g}' x2='{place(value):g}' y2='{y}' stroke='{colour}'/>"
        )
        parts.append(f"<circle cx='{place(value):g}' cy='{y}' r='6' fill='{colour}'/>")
        anchor = "end" if order else "middle"
        parts.append(text(place(value), top, f"{label}, {value:.1f}", colour, 13, anchor))
    for lower, upper, below, colour in (
        (row["grid_move_psnr"], row["reconstruction_psnr"], 46, c.pink),
        (row["fitted_psnr"], row["reconstruction_psnr"], 76, c.blue),
    ):
        parts.append(arrow(place(lower) + 2, y + below, place(upper), y + below, colour))
        parts.append(
            text(place(lower) - 6, y + below + 4, f"gap {upper - lower:.1f} dB", colour, 13, "end")
            if lower > 20
            else text(
                (place(lower) + place(upper)) / 2,
                y + below - 6,
                f"gap {upper - lower:.1f} dB",
                colour,
                13,
            )
        )
    return svg(680, 172, "".join(parts), c)


DRAWINGS: dict[str, Callable[[Colours], str]] = {
    "square": square,
    "grid-move": grid_move,
    "domains": domains,
    "seam": seam,
    "ladder": ladder,
}


def main() -> None:
    for name, draw in DRAWINGS.items():
        for page, colours in (("light", LIGHT), ("dark", DARK)):
            (IMAGES / f"{name}-{page}.svg").write_text(draw(colours), encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
