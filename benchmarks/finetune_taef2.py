"""Fine-tune a real pretrained autoencoder, TAEF2, for rot180 through the public API.

Trains on 300 photographs and tests on the 24 Kodak images, both centre-cropped. It is no diffusers
class, so this is also the proof of "any module with the same calls".

    python benchmarks/finetune_taef2.py --output_dir taef2-rot180
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import equivae
import record
from taef2 import load_taef2


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


def main(
    output_dir: Annotated[Path, option("output_dir", "a new folder")],
    data: Annotated[
        Path, option("data", "the folder that holds taef2/, photos/ and kodak/")
    ] = record.DATA,
    recipe: Annotated[str, option("recipe", "see `equivae recipes`")] = "equivae",
    resolution: Annotated[int, option("resolution", "side of the training images")] = 128,
    max_train_steps: Annotated[int, option("max_train_steps", "optimiser steps")] = 1500,
    learning_rate: Annotated[float, option("learning_rate", "its peak")] = 3e-4,
) -> None:
    vae = load_taef2(data / "taef2")
    result = equivae.finetune(
        vae,
        data / "photos",
        "rot180",
        output_dir,
        recipe=recipe,
        resolution=resolution,
        max_train_steps=max_train_steps,
        learning_rate=learning_rate,
        max_eval_samples=8,
        progress=False,
    )
    report = equivae.evaluate(
        result.vae, data / "kodak", "rot180", baseline=vae, resolution=256, progress=False
    )
    report.settings |= result.report.settings | {"tested on": "kodak, 256 px"}
    report.save(output_dir / "kodak")
    print(report.to_markdown())
    content = {"seconds": result.report.settings["seconds"], "recipe": recipe, **report.to_dict()}
    del content["command"]  # the record's own says it whole
    print(record.save(f"finetune_taef2_{recipe}", content))


if __name__ == "__main__":
    typer.run(main)
