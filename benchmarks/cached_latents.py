"""`examples/cached_latents.py`, measured: what flipping a cached latent is worth, on two VAEs.

    python benchmarks/cached_latents.py

Prepared on photographs at 128 px, compared on Kodak images at 256 px, centre crops of both.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import equivae
import record
from taef2 import load_taef2

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import cached_latents


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


def main(
    data: Annotated[
        Path, option("data", "the folder that holds taef2/, photos/ and kodak/")
    ] = record.DATA,
    max_samples: Annotated[int, option("max_samples", "photographs to cache")] = 100,
    test_images: Annotated[int, option("test_images", "Kodak images")] = 12,
    max_train_steps: Annotated[int, option("max_train_steps", "of the diffusion model")] = 60,
    threads: Annotated[int, option("threads", "of the processor")] = 1,
) -> None:
    torch.set_num_threads(threads)

    def stack(folder: str, resolution: int, count: int) -> Tensor:
        found = equivae.data.load_images(data / folder, resolution=resolution, max_samples=count)
        return torch.stack([found[i] for i in range(len(found))])

    photos, kodak = stack("photos", 128, max_samples), stack("kodak", 256, test_images)
    rows = []
    for name, vae in (("embedded", equivae.zoo.load()), ("taef2", load_taef2(data / "taef2"))):
        for row in cached_latents.run(vae, photos, kodak, "hflip", max_train_steps):
            rows.append({"vae": name, **row})
            print(json.dumps(rows[-1]), flush=True)
    content = {"cached": len(photos), "test": len(kodak), "transform": "hflip", "rows": rows}
    print(record.save("cached_latents", content))


if __name__ == "__main__":
    typer.run(main)
