"""The pictures of flat fields and of Lie derivatives in `docs/report.md`: TAEF2 and the embedded VAE.

Those that `equivae evaluate --metrics all` draws of one VAE, here of both side by side, on a Kodak image.

    python benchmarks/probes.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

import equivae
import record
from equivae.reporting.probes import draw_rows, flat_rows, lie_rows, probe
from taef2 import load_taef2

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SHOWN, SMALL = "kodim19.png", {"quality": 88, "method": 6}


def main(
    data: Annotated[
        Path, typer.Option("--data", help="the folder that holds taef2/, kodak/")
    ] = record.DATA,
) -> None:
    torch.set_num_threads(1)
    images = equivae.data.load_images(data / "kodak", resolution=256)
    place = list(images.names).index(SHOWN)
    vaes = {"TAEF2": load_taef2(data / "taef2"), "embedded": equivae.zoo.load()}
    found = {}
    for name, vae in vaes.items():
        one = probe(equivae.Autoencoder(vae), images, place, "all")
        assert one is not None
        found[name] = one
    draw_rows(flat_rows(found)).savefig(IMAGES / "flat-field.webp", pil_kwargs=SMALL)
    draw_rows(lie_rows(found)).savefig(IMAGES / "lie.webp", pil_kwargs=SMALL)


if __name__ == "__main__":
    typer.run(main)
