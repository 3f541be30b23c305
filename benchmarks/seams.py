"""Cropping and pasting latents: plain, by a fitted op, and by re-encoding, over the picture and at the seam.

    python benchmarks/seams.py

TAEF2 (f8, 32 channels) and the embedded VAE (f4, 4 channels), fitted on photographs and measured on Kodak
images. The seam band is 16 px wide: of a crop the outermost 16 px, of a paste 8 px on either side of the
window's edge. The results are kept in `benchmarks/results/seams.json`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equivae
import record
from equivae.units import psnr, unit
from taef2 import load_taef2

BAND = 16  # px


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=record.DATA, help="with taef2, photos and kodak"
    )
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--photo_resolution", type=int, default=192)
    parser.add_argument("--images", type=int, default=6, help="of Kodak's 24")
    parser.add_argument("--resolution", type=int, default=256, help="of the Kodak images")
    parser.add_argument("--kernel_size", type=int, default=3)
    return parser.parse_args()


def seam_band(op: equivae.FittedTransform, images: Tensor) -> Tensor:
    """Of `T(x)`, `(H', W')`: whether a pixel lies in the band."""
    if not op.mixes_samples:
        inner = torch.zeros(op.pixel(images[:1]).shape[-2:], dtype=torch.bool)
        inner[BAND:-BAND, BAND:-BAND] = True
        return ~inner
    black = torch.zeros_like(images[:1])
    window = op.pixel(torch.cat([black, black + 1]))[:1, :1]

    def grown(mask: Tensor) -> Tensor:
        return F.max_pool2d(mask, BAND + 1, stride=1, padding=BAND // 2)

    band: Tensor = (grown(window) + grown(1 - window) - 1)[0, 0] > 0
    return band


@torch.no_grad()
def measure(op: equivae.FittedTransform, vae: nn.Module, images: Tensor) -> dict[str, float]:
    """PSNR of the decodes against `T(x)`, over the whole picture and in the seam band."""
    view = equivae.Autoencoder(vae)

    def encode(x: Tensor) -> Tensor:
        return torch.cat([view.encode(part) for part in x.split(1)])

    def decode(z: Tensor) -> Tensor:
        return torch.cat([view.decode(part) for part in z.split(1)])

    z, target, band = encode(images), op.pixel(images), seam_band(op, images)
    shown = {
        "plain": decode(op.base.latent(z)),
        "fitted": decode(op.latent(z)),
        "reencoded": decode(encode(op.pixel(decode(z)))),
        "ceiling": decode(encode(target)),
    }
    found = {}
    for name, x in shown.items():
        error = (unit(x) - unit(target)).square()
        found[name] = round(psnr(float(error.mean())), 2)
        found[f"{name}_seam"] = round(psnr(float(error[..., band].mean())), 2)
    return found


def main() -> None:
    asked = options()
    torch.set_num_threads(1)

    def stack(folder: str, count: int, resolution: int) -> Tensor:
        found = equivae.data.load_images(asked.data / folder, resolution=resolution)
        step = max(1, len(found) // count)
        return torch.stack([found[i * step] for i in range(count)])

    photos = stack("photos", asked.photos, asked.photo_resolution)
    kodak = stack("kodak", asked.images, asked.resolution)
    rows: list[dict[str, Any]] = []
    for name, vae in (
        ("taef2", load_taef2(asked.data / "taef2")),
        ("embedded", equivae.zoo.load()),
    ):
        for transform in ("crop", "paste"):
            began = time.process_time()
            op = equivae.fit_latent_op(
                vae, transform, photos, kernel_size=asked.kernel_size, progress=False
            )
            seconds = round(time.process_time() - began, 1)
            plain = bool(op.report.is_plain)
            row = {"vae": name, "transform": transform, "fit_cpu_seconds": seconds}
            rows.append({**row, "is_plain": plain, **measure(op, vae, kodak)})
            print(rows[-1], flush=True)
    sizes = ("photos", "photo_resolution", "images", "resolution", "kernel_size")
    content = {name: getattr(asked, name) for name in sizes}
    print(record.save("seams", {**content, "band": BAND, "rows": rows}))


if __name__ == "__main__":
    main()
