"""Draw the picture of the README and of the home page: latents of photographs, flipped and decoded.

    python docs/tools/home.py --data DATA

DATA holds `taef2`, a pretrained autoencoder, `photos` for the fit, and `kodak`, whose photographs are free of
restrictions. Writes docs/images/home.webp.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

import equivae

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from taef2 import load_taef2  # noqa: E402

SHOWN = ("kodim05", "kodim20", "kodim15")
TITLES = ("flipped photograph", "its latent, flipped and decoded", "with a fitted latent op")


def main(
    data: Annotated[Path, typer.Option("--data", help="a folder with taef2, photos and kodak")],
    output_file: Annotated[Path, typer.Option("--output_file", help="a WebP")] = (
        ROOT / "docs" / "images" / "home.webp"
    ),
    images: Annotated[int, typer.Option("--images", help="photographs for the fit")] = 96,
) -> None:
    vae = load_taef2(data / "taef2")
    plain = equivae.get_transform("hflip")
    began = time.perf_counter()
    fitted = equivae.fit_latent_op(
        vae, "hflip", data / "photos", 7, magnitude=3, resolution=128, max_samples=images
    )
    print(f"fitted in {time.perf_counter() - began:.0f} s")
    kodak = equivae.data.load_images(data / "kodak", resolution=256)
    names = [Path(name).stem for name in kodak.names]
    view = equivae.Autoencoder(vae)
    figure = Figure(figsize=(7.68, 7.98), dpi=100, facecolor="none")
    axes = figure.subplots(len(SHOWN), len(TITLES), gridspec_kw={"wspace": 0.02, "hspace": 0.02})
    for row, name in zip(axes, SHOWN, strict=True):
        x = kodak[names.index(name)][None]
        with torch.inference_mode():
            z = view.encode(x)
            seen = (plain.pixel(x), view.decode(plain.latent(z)), view.decode(fitted.latent(z)))
        for axis, picture in zip(row, seen, strict=True):
            _show(axis, picture)
    for axis, title in zip(axes[0], TITLES, strict=True):
        axis.set_title(title, fontsize=10, color="#7d848d")
    figure.subplots_adjust(left=0, right=1, bottom=0, top=0.965)
    figure.savefig(output_file, pil_kwargs={"quality": 88})


def _show(axis: object, picture: Tensor) -> None:
    array = picture[0].clamp(-1, 1).add(1).div(2).permute(1, 2, 0).numpy()
    axis.imshow(array, interpolation="lanczos")  # type: ignore[attr-defined]
    axis.axis("off")  # type: ignore[attr-defined]


if __name__ == "__main__":
    typer.run(main)
