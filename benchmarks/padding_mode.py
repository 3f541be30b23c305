"""What `padding_mode` changes: reconstruction and round trips, at the border and inside.

    python benchmarks/padding_mode.py

Two VAEs as they are, whose weights were trained on padding by zeros, and the embedded one after a short
fine-tune under each mode, over the 24 Kodak images, centre-cropped at 256 px. `border` is the outermost 16
pixels, 23 % of the picture; `inside` is what is more than 48 pixels away from it. PSNR in dB, peak 1.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import typer
from torch import Tensor, nn

import equivae
import record
from equivae.autoencoder.padding import PaddingMode
from taef2 import load_taef2

TRANSFORMS = ("rot180", "hflip", "rot90")
BORDER, MARGIN = 16, 48


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


def main(
    data: Annotated[Path, option("data", "the folder that holds taef2/ and kodak/")] = record.DATA,
    max_train_steps: Annotated[int, option("max_train_steps", "of each fine-tune")] = 150,
    max_samples: Annotated[int, option("max_samples", "Kodak images")] = 24,
    threads: Annotated[int, option("threads", "of the processor")] = 1,
) -> None:
    torch.set_num_threads(threads)
    dataset = equivae.data.load_images(data / "kodak", resolution=256, max_samples=max_samples)
    kodak = torch.stack([dataset[i] for i in range(len(dataset))])
    rows = []
    for name, vae in (("embedded", equivae.zoo.load()), ("taef2", load_taef2(data / "taef2"))):
        for mode in get_args(PaddingMode):
            with equivae.using_padding_mode(vae, mode):
                rows.append({"vae": name, "padding_mode": mode, **measure(vae, kodak)})
            print(json.dumps(rows[-1]), flush=True)
    for mode in get_args(PaddingMode):
        tuned = finetune(mode, max_train_steps)
        label = f"embedded, fine-tuned for {max_train_steps} steps"
        rows.append({"vae": label, "padding_mode": mode, **measure(tuned, kodak)})
        print(json.dumps(rows[-1]), flush=True)
    content = {"images": len(dataset), "resolution": 256, "border": BORDER, "margin": MARGIN}
    print(record.save("padding_mode", content | {"rows": rows}))


def finetune(mode: PaddingMode, steps: int) -> nn.Module:
    """All weights, for three transforms, on procedural images, as the demo does it."""
    images = equivae.data.dead_leaves(300, size=64, seed=1_000)
    with tempfile.TemporaryDirectory() as folder:
        result = equivae.finetune(
            equivae.zoo.load(),
            images,
            list(TRANSFORMS),
            Path(folder) / "out",
            max_train_steps=steps,
            padding_mode=mode,
            max_eval_samples=2,
            progress=False,
        )
    return result.vae


@torch.no_grad()
def measure(vae: nn.Module, images: Tensor) -> dict[str, Any]:
    """PSNR of the mean error over the images, of reconstruction and each round trip, by region."""
    view = equivae.Autoencoder(vae)
    errors: dict[str, list[Tensor]] = defaultdict(list)
    for x in images.split(1):
        z = view.encode(x)
        errors["reconstruction"].append(_error(view.decode(z), x))
        for name in TRANSFORMS:
            transform = equivae.get_transform(name)
            back = transform.inverse.pixel(view.decode(transform.latent(z)))
            errors[name].append(_error(back, x))
    return {key: _by_region(torch.stack(values).mean(0)) for key, values in errors.items()}


def _error(decoded: Tensor, x: Tensor) -> Tensor:
    """Squared error in [0, 1] units of one image, `(H, W)`."""
    error = (decoded.clamp(-1, 1) - x).div(2).square().mean((0, 1))
    return error


def _by_region(error: Tensor) -> dict[str, float]:
    inner = error[BORDER:-BORDER, BORDER:-BORDER]
    border = (error.sum() - inner.sum()) / (error.numel() - inner.numel())
    regions = {"all": error.mean(), "border": border}
    regions["inside"] = error[MARGIN:-MARGIN, MARGIN:-MARGIN].mean()
    return {name: round(-10 * math.log10(float(value)), 2) for name, value in regions.items()}


if __name__ == "__main__":
    typer.run(main)
