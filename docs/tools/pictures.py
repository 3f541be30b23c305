"""Draw the home page's pictures: a latent turned by 180° and decoded, before and after each way of the demo.

    equivae demo --output_dir equivae-demo
    python docs/tools/pictures.py --demo equivae-demo

Writes JPEGs to docs/images. The photograph is one of those in the package (a detail of scikit-image's
astronaut, NASA, in the public domain); neither the embedded VAE nor the demo trained on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from einops import rearrange
from PIL import Image
from torch import Tensor

import equivae

IMAGES = Path(__file__).parents[1] / "images"
PHOTOGRAPH = 1  # of `equivae.zoo.photographs`


def main(
    demo: Annotated[Path, typer.Option("--demo", help="the folder that `equivae demo` wrote")],
    output_dir: Annotated[Path, typer.Option("--output_dir", help="a folder")] = IMAGES,
) -> None:
    x = equivae.zoo.photographs()[PHOTOGRAPH : PHOTOGRAPH + 1]
    rot180 = equivae.get_transform("rot180")
    fitted = equivae.load_latent_op(demo / "fitted")
    trained = equivae.load_latent_op(demo / "fitted-finetuned" / "operators" / "rot180_fitted")
    ways: dict[str, tuple[str | Path, equivae.Transform]] = {
        "before": ("embedded", rot180),
        "fitted": ("embedded", fitted),
        "symmetrized": (demo / "symmetrized", rot180),
        "fitted-finetuned": (demo / "fitted-finetuned", trained),
        "finetuned": (demo / "finetuned", rot180),
    }
    save(x, output_dir / "compare-original.jpg")
    for name, (source, transform) in ways.items():
        view = equivae.Autoencoder(equivae.load_vae(source))
        with torch.inference_mode():
            save(view.decode(transform.latent(view.encode(x))), output_dir / f"compare-{name}.jpg")


def save(image: Tensor, path: Path) -> None:
    array = image[0].clamp(-1, 1).add(1).mul(127.5).round().byte()
    Image.fromarray(rearrange(array, "c h w -> h w c").numpy()).save(path, quality=92)
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    typer.run(main)
