"""One photograph's latent under every transform of the table: plain, fitted, by a network, and re-encoded.

    python benchmarks/latent_operators.py --table --ops OPS
    python benchmarks/operator_pictures.py --ops OPS --output docs/images/latent-ops.webp

The columns are T(x), then what TAEF2, untouched, decodes from the latent op's result, with its PSNR against
T(x) inside the mask; what lies outside the mask is faded. The latent ops are those that the table measured.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import equivae
import record
from equivae.evaluation import psnr
from equivae.operators import load_latent_op
from equivae.operators.decoding import squared_error
from operator_table import ROWS
from taef2 import load_taef2
from transform_gallery import GREY, photograph, show, unit

KINDS = ("T(x)", "plain", "fitted", "network", "re-encoded")
BANDS, TILE = 2, 1.15  # transforms beside each other; inches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=record.DATA)
    parser.add_argument("--ops", type=Path, required=True, help="of latent_operators.py --table")
    parser.add_argument("--image", default="kodim23.png")
    parser.add_argument("--output", type=Path, default=Path("docs/images/latent-ops.webp"))
    parser.add_argument("--dpi", type=int, default=100)
    options = parser.parse_args()
    vae = equivae.Autoencoder(load_taef2(options.data / "taef2"))
    x = photograph(options.data / "kodak" / options.image)[None]
    draw(vae, x, options.ops / "taef2", options.output, options.dpi)


@torch.no_grad()
def decodes(
    vae: equivae.Autoencoder, x: Tensor, name: str, folder: Path
) -> Iterator[tuple[Tensor, str]]:
    """The pictures of a transform, one for each of `KINDS`, and what stands below each."""
    transform = vae.place(equivae.get_transform(name))
    target, z = transform.pixel(x), vae.encode(x)
    yield target, ""
    latents = [transform.latent(z)]
    latents += [load_latent_op(folder / name / kind).latent(z) for kind in ("fitted", "network")]
    latents.append(vae.encode(transform.pixel(vae.decode(z).clamp(-1, 1))))
    for latent in latents:
        decoded = vae.decode(latent)
        error, count = squared_error(decoded, target, transform.mask(x))
        yield decoded, f"{psnr(float(error) / count):.1f} dB"


def draw(vae: equivae.Autoencoder, x: Tensor, folder: Path, path: Path, dpi: int) -> None:
    tall = math.ceil(len(ROWS) / BANDS)
    height, width = tall * (TILE + 0.17) + 0.25, BANDS * len(KINDS) * TILE + 0.15
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="none")
    for place, name in enumerate(ROWS):
        band, row = divmod(place, tall)
        transform = vae.place(equivae.get_transform(name))
        mask = transform.mask(x)
        for column, (picture, below) in enumerate(decodes(vae, x, name, folder)):
            left = (band * len(KINDS) + column) * TILE + band * 0.15
            top = 0.25 + row * (TILE + 0.17)
            box = (left + 0.02, height - top - TILE + 0.02, TILE - 0.04, TILE - 0.04)
            axis = figure.add_axes(
                (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
            )
            inside = torch.ones(1, *picture.shape[-2:], dtype=torch.bool)
            show(axis, unit(picture)[0], inside if mask is None else mask.expand_as(inside))
            axis.set_xlabel(below or name, fontsize=6, color=GREY, labelpad=1)
            if row == 0:
                axis.set_title(KINDS[column], fontsize=7, color=GREY, pad=3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(buffer) as image:
        image.save(path, quality=82, method=6)
    print(f"{path}: {len(ROWS)} transforms, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
