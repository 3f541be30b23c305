"""The page of a playground: every frame inside it as data."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from torch import Tensor

from equivae.reporting.content import save_files, versions
from equivae.reporting.frames import WAYS, Frame, Position
from equivae.reporting.page import render
from equivae.reporting.page_numbers import db
from equivae.reporting.page_pictures import data_uri
from equivae.reporting.sliders import SLIDERS
from equivae.reporting.text import readable

if TYPE_CHECKING:
    from equivae.reporting.playground import Playground

__all__ = ["playground_page", "save_playground"]

_SIDE, _QUALITY = 256, 80  # of a frame, so that some 160 of them stay below 4 MB
TITLES = {
    "reference": "transformed picture",
    "plain": "plain latent op",
    "fitted": "fitted latent op",
    "re-encoded": "re-encoded",
    "symmetrized": "symmetrized",
}
_MEANS = {
    "reference": "what the others should be",
    "plain": "moves the grid, or nothing",
    "fitted": "fitted in closed form",
    "re-encoded": "decoded, transformed, encoded",
    "symmetrized": "plain latent op of a VAE of the group",
}


def save_playground(made: Playground, folder: str | Path, *, overwrite: bool) -> Path:
    """Write the page and the numbers; return where the page is."""
    numbers = json.dumps(made.to_dict(), indent=1) + "\n"
    texts = {"playground.html": playground_page(made), "playground.json": numbers}
    return save_files(folder, texts, {}, overwrite=overwrite) / "playground.html"


def playground_page(made: Playground) -> str:
    """The page of a playground."""
    side = _rest(made.positions).target.shape[-1]
    sliders = []
    for name, found in groupby(made.positions, key=lambda one: one.slider):
        (slider,) = [one for one in SLIDERS if one.name == name]
        own = list(found)
        positions = [_position(one, slider.shown(one.value), side) for one in own]
        values = [one.value for one in own]
        rest = values.index(slider.rest)
        sliders.append({"name": name, "rest": rest, "at": values, "positions": positions})
    place, index = start = _start(sliders)
    data = {"sliders": sliders, "ways": ["reference", *WAYS], "start": start}
    return render(
        "playground.html",
        title="Playground",
        verdict="Drag a transform, and see what the latent decodes to",
        facts=[
            made.image,
            f"{side} px",
            f"VAE {made.settings['vae']}",
            f"seed {made.settings['seed']}",
            made.created[:10],
        ],
        sliders=sliders,
        panels=[
            {"way": way, "title": TITLES[way], "means": _MEANS[way], **shown}
            for way, shown in sliders[place]["positions"][index]["frames"].items()
        ],
        ways=[TITLES[way] for way in WAYS],
        data=Markup(_inside_a_script(data)),
        group=made.settings["group"],
        settings={key: str(value) for key, value in made.settings.items()},
        skipped=[],
        command=made.command,
        versions=versions(),
        created=made.created,
    )


def _start(sliders: list[dict[str, Any]]) -> tuple[int, int]:
    """Where the page begins: the first position that every way has a frame for and that is not at rest."""
    moved = [
        (place, index)
        for place, slider in enumerate(sliders)
        for index in range(len(slider["positions"]))
        if index != slider["rest"]
    ]
    whole = (
        (place, index)
        for place, index in moved
        if all(tile["source"] for tile in sliders[place]["positions"][index]["frames"].values())
    )
    return next(whole, moved[0])


def _rest(positions: list[Position]) -> Position:
    return next(one for one in positions if one.transform == "identity")


def _position(one: Position, shown: str, side: int) -> dict[str, Any]:
    reference = _tile(Frame(one.target), side)
    tiles = {way: _tile(frame, side) for way, frame in one.frames.items()}
    return {
        "label": shown,
        "transform": readable(one.transform),
        "frames": {"reference": reference, **tiles},
    }


def _tile(frame: Frame, side: int) -> dict[str, Any]:
    if frame.picture is None:
        return {"source": "", "share": 100, "psnr": "", "why": frame.why}
    picture = _middle(frame.picture, side)
    return {
        "source": data_uri(picture, largest=_SIDE, quality=_QUALITY),
        "share": round(100 * picture.shape[-1] / side, 2),
        "psnr": "" if frame.psnr is None else f"{db(frame.psnr)} dB",
        "why": "",
    }


def _middle(picture: Tensor, side: int) -> Tensor:
    """What is larger than the picture at rest is cut to its middle, so that every frame has one scale."""
    height, width = picture.shape[-2:]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return picture[:, top : top + side, left : left + side]


def _inside_a_script(data: Any) -> str:
    """JSON that cannot end the element that it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
