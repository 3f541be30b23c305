"""Every registered image transform on one photograph: in pixels, and on its latent, decoded by TAEF2.

    python benchmarks/transform_gallery.py --output docs/images/transforms.png

The upper picture of a pair is T(x), the lower one D(ρ(E(x))), with its PSNR against the upper one inside
the mask; what lies outside the mask is faded. Random transforms are drawn once, with seed 0.
"""

from __future__ import annotations

import argparse
import io
import math
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import equivae
import record
from equivae.evaluation import psnr
from equivae.transforms import Transform, transform_table

SIZE, COLUMNS, TILE = 256, 8, 1.42  # pixels; pairs per row; inches
INK, MUTED = "#1f2328", "#6e7781"
COLOURS = {
    "lattice": "#0969da",
    "resampled": "#bc4c00",
    "representation": "#8250df",
    "mixing": "#1a7f37",
    "random": "#bf3989",
    "combinator": "#57606a",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=record.DATA)
    parser.add_argument("--images", nargs=2, default=["kodim23.png", "kodim07.png"])
    parser.add_argument("--output", type=Path, default=Path("docs/images/transforms.png"))
    options = parser.parse_args()
    from taef2 import load_taef2

    vae = equivae.Autoencoder(load_taef2(options.data / "taef2"))
    folder = options.data / "kodak"
    x = torch.stack([photograph(folder / name) for name in options.images])
    rows = [row for row in transform_table() if row.group in COLOURS and row.source == "equivae"]
    rows.sort(key=lambda row: list(COLOURS).index(row.group))
    draw(vae, x, [(equivae.get_transform(row.name), row.group) for row in rows], options.output)


def photograph(path: Path) -> Tensor:
    with Image.open(path) as image:
        pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        pixels = pixels.view(image.height, image.width, 3).permute(2, 0, 1)
    from equivae.data.sources import resize_and_crop

    return resize_and_crop(pixels.float().div(127.5).sub(1), SIZE)


@torch.no_grad()
def draw(
    vae: equivae.Autoencoder, x: Tensor, chosen: list[tuple[Transform, str]], path: Path
) -> None:
    z = vae.encode(x)
    bands = math.ceil(len(chosen) / COLUMNS)
    figure = Figure(
        figsize=(COLUMNS * TILE, bands * (2 * TILE + 0.5) + 0.35), dpi=100, facecolor="white"
    )
    figure.text(
        0.006,
        1 - 0.12 / figure.get_figheight(),
        "upper: T(x), pixels moved     lower: D(ρ(E(x))), the latent moved and decoded by TAEF2, untouched "
        "(PSNR inside the mask; outside it, faded)",
        fontsize=8.5,
        color=INK,
        va="top",
    )
    tall = figure.get_figheight()
    for place, (transform, group) in enumerate(chosen):
        band, column = divmod(place, COLUMNS)
        fixed = transform.at_factor(vae.factor).draw(len(x), torch.Generator().manual_seed(0))
        target, decoded = fixed.pixel(x), vae.decode(fixed.latent(z))
        mask = fixed.mask(x)
        inside = torch.ones_like(target[:, :1], dtype=torch.bool) if mask is None else mask
        inside = inside.expand(len(x), 1, *target.shape[-2:])
        top = tall - 0.35 - band * (2 * TILE + 0.5)
        error = (unit(target) - unit(decoded))[0][inside[0].expand(3, -1, -1)].square().mean()
        for row, picture in enumerate((target, decoded)):
            bottom = top - 0.2 - (row + 1) * TILE
            box = (column / COLUMNS, bottom / tall, 1 / COLUMNS, TILE / tall)
            axis = figure.add_axes((box[0] + 0.003, box[1], box[2] - 0.006, box[3] * 0.97))
            show(axis, unit(picture)[0], inside[0])
            if row == 0:
                axis.set_title(fixed_name(transform), fontsize=7.5, color=COLOURS[group], pad=2)
            else:
                axis.set_xlabel(
                    f"{psnr(float(error)):.1f} dB", fontsize=7.5, color=MUTED, labelpad=1
                )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(
            path, optimize=True
        )
    print(f"{path}: {len(chosen)} transforms, {path.stat().st_size / 1e6:.2f} MB")


def fixed_name(transform: Transform) -> str:
    name = transform.name
    return name if len(name) <= 27 else name.partition("(")[0]


def unit(images: Tensor) -> Tensor:
    return images.clamp(-1, 1).add(1).div(2)


def show(axis: Axes, picture: Tensor, inside: Tensor) -> None:
    faded = torch.where(inside, picture, 0.3 * picture + 0.7)
    side = picture.shape[-1] / SIZE
    axis.imshow(faded.permute(1, 2, 0).numpy(), interpolation="antialiased")
    # A smaller picture is shown smaller.
    margin = (1 / side - 1) / 2 * picture.shape[-1] if side < 1 else 0
    axis.set_xlim(-0.5 - margin, picture.shape[-1] - 0.5 + margin)
    axis.set_ylim(picture.shape[-2] - 0.5 + margin, -0.5 - margin)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


if __name__ == "__main__":
    main()
