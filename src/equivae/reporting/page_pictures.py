"""The pictures of a page, inside it as data."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from einops import rearrange
from PIL import Image
from torch import Tensor

from equivae.evaluation.results import Panel
from equivae.reporting.figures import error_of, latent_colours
from equivae.reporting.findings import ComparedFindings, Findings
from equivae.reporting.overview import overview_of
from equivae.reporting.page_numbers import db
from equivae.reporting.probes import OF_FLATS, Tile

__all__ = [
    "compared_blocks",
    "data_uri",
    "latent_blocks",
    "picture_blocks",
    "probe_blocks",
    "slider_of",
]

_LARGEST = 512  # side of a picture in the page, in pixels
_SMALL = 96  # below it, pictures are kept exactly


def picture_blocks(report: Findings) -> list[dict[str, Any]]:
    found = []
    for transform in dict.fromkeys(panel.transform for panel in report.panels):
        after = [p for p in report.panels if p.transform == transform]
        before = [p for p in report.panels_before if p.transform == transform]
        images = []
        for i, panel in enumerate(after):
            rows = [_picture_row("after" if before else "", "after", panel)]
            if before:
                rows.insert(0, _picture_row("before", "before", before[i]))
            images.append({"name": panel.image, "rank": panel.rank, "rows": rows})
        found.append({"transform": transform, "images": images})
    return found


def compared_blocks(comparison: ComparedFindings) -> list[dict[str, Any]]:
    found = []
    panels: list[Panel] = next(iter(comparison.panels.values()), [])
    for transform in dict.fromkeys(panel.transform for panel in panels):
        images: list[dict[str, Any]] = []
        for i, first in enumerate(p for p in panels if p.transform == transform):
            rows = []
            for j, (label, mine) in enumerate(comparison.panels.items()):
                panel = [p for p in mine if p.transform == transform][i]
                rows.append(_picture_row(label, f"series-{j % 8}", panel))
            images.append({"name": first.image, "rank": first.rank, "rows": rows})
        found.append({"transform": transform, "images": images})
    return found


def _picture_row(label: str, key: str, panel: Panel) -> dict[str, Any]:
    tiles = [
        ("original", "", panel.original),
        (
            "reconstruction",
            f"{db(error_of(panel, panel.reconstruction))} dB",
            panel.reconstruction,
        ),
        (f"latent under {panel.transform}, decoded", "", panel.moved),
    ]
    if panel.back is not None:
        tiles.append(("that moved back", f"{db(error_of(panel, panel.back))} dB", panel.back))
    return {"label": label, "key": key, "tiles": _tiles(tiles)}


def latent_blocks(report: Findings) -> list[dict[str, Any]]:
    found = []
    for transform in dict.fromkeys(panel.transform for panel in report.panels):
        rows_of_image: dict[str, list[dict[str, Any]]] = {}
        measured = [("before", report.panels_before), ("after", report.panels)]
        for key, panels in measured:
            mine = [p for p in panels if p.transform == transform]
            label = key if report.panels_before else ""
            for panel, colours in zip(mine, latent_colours(mine), strict=False):
                names = (
                    "latent",
                    f"latent under {transform}",
                    f"latent of image under {transform}",
                )
                tiles = [(name, "", c) for name, c in zip(names, colours, strict=True)]
                row = {"label": label, "key": key, "tiles": _tiles(tiles)}
                rows_of_image.setdefault(panel.image, []).append(row)
        images = [{"name": name, "rank": "", "rows": rows} for name, rows in rows_of_image.items()]
        if images:
            found.append({"transform": transform, "images": images[:1]})
    return found


_PROBES = {
    "flat_field": (
        "Flat field",
        f"Constants, encoded and decoded: their deviation. Grey is none, black {OF_FLATS.black} and white "
        f"{OF_FLATS.white} or more.",
    ),
    "lie": (
        "Where the decode does not follow",
        "Lie derivatives of the decoder, root mean square over the channels in [0, 1] units: black where a "
        "move of the latent moves the picture. Without the outermost two cells.",
    ),
}


def probe_blocks(report: Findings) -> list[dict[str, Any]]:
    """Flat fields and maps, as blocks with a title and a note."""
    found = []
    for name, rows in report.probed().items():
        shown = [
            {
                "label": label,
                "key": label,
                "tiles": _tiles([(_said(tile), "", tile.picture) for tile in tiles]),
            }
            for label, tiles in rows
        ]
        title, note = _PROBES[name]
        found.append({"title": title, "note": note, "rows": shown})
    return found


def _said(tile: Tile) -> str:
    """The caption, with what is white where that is not the same for all."""
    if tile.scale is None or tile.scale is OF_FLATS:
        return tile.caption
    return f"{tile.caption}: white is {tile.scale.white} {tile.scale.name}"


def slider_of(report: Findings) -> dict[str, Any] | None:
    """Two pictures to slide between: before and after, plain and fitted, or decode and target."""
    overview = overview_of(report.panels, report.panels_before)
    if overview is None:
        return None
    sides = [
        {
            "label": tile.label,
            "error": tile.error,
            "source": data_uri(tile.picture),
        }
        for tile in overview.pair
    ]
    return {"image": overview.image, "transform": overview.transform, "sides": sides}


def _tiles(pictures: Iterable[tuple[str, str, Tensor]]) -> list[dict[str, str]]:
    return [
        {"caption": caption, "error": error, "source": data_uri(picture)}
        for caption, error, picture in pictures
    ]


def data_uri(picture: Tensor, largest: int = _LARGEST, quality: int = 92) -> str:
    """A picture `(C, H, W)` in [0, 1] as a data URI: PNG if it is small, else JPEG.

    Args:
        picture: the picture.
        largest: its longer side at most, in pixels.
        quality: of the JPEG; below 90 with colours at half the resolution.
    """
    shown = rearrange(picture, "c h w -> h w c").nan_to_num(0.0)  # where there is no colour, black
    array = shown.mul(255).round().clamp(0, 255).byte().numpy()
    image = Image.fromarray(array if array.shape[-1] == 3 else np.ascontiguousarray(array[..., 0]))
    target = io.BytesIO()
    if max(image.size) <= _SMALL:
        image.save(target, "PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((largest, largest))
        halved = 2 if quality < 90 else 0
        image.save(target, "JPEG", quality=quality, subsampling=halved, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(target.getvalue()).decode()}"
