"""Maps between two VAEs' latents, previews, and the fitted ops of a random transform, in numbers.

    python benchmarks/latent_maps.py

TAEF2 (f8, 32 channels) and the embedded VAE (f4, 4 channels), fitted on photographs and measured on Kodak
images, centre-cropped at 256 px. The results are kept in `benchmarks/results/latent_maps.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

import equivae
import record
from equivae.operators import measure_latent_map
from equivae.operators.decoding import decoded_psnr, squared_error
from equivae.units import psnr
from taef2 import load_taef2


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=record.DATA, help="with taef2, photos and kodak"
    )
    parser.add_argument("--photos", type=int, default=128)
    parser.add_argument("--resolution", type=int, default=256, help="of the photographs")
    parser.add_argument("--images", type=int, default=24, help="of Kodak's 24")
    parser.add_argument("--kernel_size", type=int, default=5)
    parser.add_argument("--factors", default="0.25,0.5,0.75", help="scalings of the family")
    return parser.parse_args()


@torch.no_grad()
def preview_psnr(vae: Any, preview: Any, images: Tensor) -> float:
    view = equivae.Autoencoder(vae)
    parts = [
        squared_error(preview.image(view.encode(x)), avg_pool2d(x, view.factor), None)
        for x in images.split(2)
    ]
    return psnr(sum(float(s) for s, _ in parts) / sum(n for _, n in parts))


@torch.no_grad()
def moved_psnr(vae: Any, transform: equivae.Transform, images: Tensor) -> float:
    """PSNR of `D(ρ E(x))` against `T(x)`, inside the mask."""
    view = equivae.Autoencoder(vae)
    placed = view.place(transform)
    return decoded_psnr(
        view,
        ((placed.latent(view.encode(x)), placed.pixel(x), placed.mask(x)) for x in images.split(2)),
    )


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    vaes = {"taef2": load_taef2(asked.data / "taef2"), "embedded": equivae.zoo.load()}
    photos = equivae.data.load_images(
        asked.data / "photos", resolution=asked.resolution, max_samples=asked.photos
    )
    kodak = equivae.data.load_images(asked.data / "kodak", resolution=256)
    step = max(1, len(kodak) // asked.images)
    images = torch.stack([kodak[i * step] for i in range(asked.images)])
    content: dict[str, Any] = {"photos": asked.photos, "images": asked.images}
    content["resolution"] = asked.resolution
    content["previews"] = []
    for name, vae in vaes.items():
        preview = equivae.fit_preview(vae, photos, max_samples=32, progress=False)
        row = {"vae": name, "psnr": preview_psnr(vae, preview, images)}
        print(row, flush=True)
        content["previews"].append(row)
    content["maps"] = []
    for a, b in (("taef2", "embedded"), ("embedded", "taef2")):
        began = time.process_time()
        op = equivae.fit_latent_map(vaes[a], vaes[b], photos, asked.kernel_size, progress=False)
        row = {"from": a, "to": b, "seconds": time.process_time() - began}
        row |= dataclasses.asdict(measure_latent_map(op, vaes[a], vaes[b], images))
        print(row, flush=True)
        content["maps"].append(row)
    factors = tuple(map(float, asked.factors.split(",")))
    family: Any = equivae.fit_latent_op(
        vaes["taef2"],
        equivae.get_transform("random_scale", factors=factors),
        photos,
        asked.kernel_size,
        progress=False,
    )
    content["family"] = []
    for one in family.members:
        row = {"transform": one.base.name}
        row["plain_psnr"] = moved_psnr(vaes["taef2"], one.base, images)
        row["fitted_psnr"] = moved_psnr(vaes["taef2"], one, images)
        print(row, flush=True)
        content["family"].append(row)
    record.save("latent_maps", content)


if __name__ == "__main__":
    main()
