"""Every registered image transform on one photograph: in pixels, and on its latent, decoded by TAEF2.

    python benchmarks/transform_gallery.py --output_dir docs/images

writes `transforms-KIND.webp` for every kind, in the order in which docs/transforms.md names them.

The upper picture of a pair is T(x), the lower one D(ρ(E(x))), with its PSNR against the upper one inside
the mask; what lies outside the mask is faded. Random transforms are drawn once, with seed 0. The ground is
transparent and the words are grey, so that the sheet suits a light and a dark page.
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

SIZE, COLUMNS, TILE = 256, 6, 1.5  # pixels; pairs per row; inches
WORDS = 0.25  # inches above and below every pair
GREY = "#7d848d"  # can be read on white and on dark
KINDS = ("lattice", "resampled", "photometric", "representation", "mixing", "random", "combinator")
PAGE = Path(__file__).parents[1] / "docs" / "transforms.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=record.DATA)
    parser.add_argument("--images", nargs=2, default=["kodim23.png", "kodim07.png"])
    parser.add_argument("--output_dir", type=Path, default=PAGE.parent / "images")
    options = parser.parse_args()
    from taef2 import load_taef2

    vae = equivae.Autoencoder(load_taef2(options.data / "taef2"))
    folder = options.data / "kodak"
    x = torch.stack([photograph(folder / name) for name in options.images])
    page = PAGE.read_text(encoding="utf-8")
    rows = [row for row in transform_table() if row.source == "equivae"]
    for kind in KINDS:
        names = sorted(
            (row.name for row in rows if row.group == kind), key=lambda n: place(page, n)
        )
        found = [equivae.get_transform(name) for name in names if name != "identity"]
        draw(vae, x, found, options.output_dir / f"transforms-{kind}.webp")


def place(page: str, name: str) -> int:
    """Where the page names a transform first."""
    return min(found if (found := page.find(f"`{name}{end}")) >= 0 else len(page) for end in "`(")


def photograph(path: Path) -> Tensor:
    with Image.open(path) as image:
        pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        pixels = pixels.view(image.height, image.width, 3).permute(2, 0, 1)
    from equivae.data.sources import resize_and_crop

    return resize_and_crop(pixels.float().div(127.5).sub(1), SIZE)


@torch.no_grad()
def draw(vae: equivae.Autoencoder, x: Tensor, chosen: list[Transform], path: Path) -> None:
    z = vae.encode(x)
    pair = 2 * TILE + 2 * WORDS
    wide, tall = COLUMNS * TILE, math.ceil(len(chosen) / COLUMNS) * pair
    figure = Figure(figsize=(wide, tall), dpi=120, facecolor="none")
    for number, transform in enumerate(chosen):
        band, column = divmod(number, COLUMNS)
        left, top = column * TILE, tall - band * pair - WORDS
        size = ((TILE - 0.04) / wide, (TILE - 0.04) / tall)
        corners = [((left + 0.02) / wide, (top - (row + 1) * TILE) / tall) for row in range(2)]
        axes = [figure.add_axes((*corner, *size)) for corner in corners]
        draw_pair(axes, vae, transform, x, z)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(buffer) as image:
        image.save(path, quality=84, method=6)
    print(f"{path}: {len(chosen)} transforms, {path.stat().st_size / 1e6:.2f} MB")


def draw_pair(
    axes: list[Axes], vae: equivae.Autoencoder, transform: Transform, x: Tensor, z: Tensor
) -> None:
    """T(x) above, the decode of ρ(z) below."""
    fixed = transform.at_factor(vae.factor).draw(len(x), torch.Generator().manual_seed(0))
    target, decoded = fixed.pixel(x), vae.decode(fixed.latent(z))
    mask = fixed.mask(x)
    inside = torch.ones_like(target[:, :1], dtype=torch.bool) if mask is None else mask
    inside = inside.expand(len(x), 1, *target.shape[-2:])
    error = (unit(target) - unit(decoded))[0][inside[0].expand(3, -1, -1)].square().mean()
    for axis, picture in zip(axes, (target, decoded), strict=True):
        show(axis, unit(picture)[0], inside[0])
    axes[0].set_title(fixed_name(transform), fontsize=9, color=GREY, pad=3)
    axes[1].set_xlabel(f"{psnr(float(error)):.1f} dB", fontsize=9, color=GREY, labelpad=2)


def fixed_name(transform: Transform) -> str:
    name = transform.name
    return name if len(name) <= 22 else name.partition("(")[0]


def unit(images: Tensor) -> Tensor:
    return images.clamp(-1, 1).add(1).div(2)


def show(axis: Axes, picture: Tensor, inside: Tensor) -> None:
    seen = torch.cat([picture, torch.where(inside, 1.0, 0.3).expand_as(picture[:1])])
    side = picture.shape[-1] / SIZE
    axis.imshow(seen.permute(1, 2, 0).numpy(), interpolation="antialiased")
    axis.patch.set_visible(False)
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
