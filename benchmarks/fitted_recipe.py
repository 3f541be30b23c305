"""What the recipe "fitted" rests on: decoder and operator trained from the same fit under several options.

python benchmarks/fitted_recipe.py --seconds 60
"""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import record
from curves import Setting, fresh, run
from sotemix_rot180 import DATA, fitted, images, load, option

TRIALS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "learning rate 1e-4": {"learning_rate": 1e-4},
    "learning rate 3e-4": {"learning_rate": 3e-4},
    "weight 1, half of the images moved": {"weight": 1.0, "probability": 0.5},
    "weights not averaged": {"use_ema": False},
    "operator at a tenth of the rate": {"operator_learning_rate": 2e-5},
}


def main(
    data: Annotated[Path, option("data", "the folder that holds taef2/, photos/, kodak/")] = DATA,
    vae: Annotated[str, option("vae", "taef2, embedded, or what load_vae takes")] = "taef2",
    seconds: Annotated[float, option("seconds", "of every trial")] = 60.0,
    seed: Annotated[int, option("seed", "of batches and draws")] = 0,
) -> None:
    torch.set_num_threads(1)
    photos, test = images(str(data / "photos"), 256), images(str(data / "kodak"), 256)
    setting, model = Setting(photos, test, points=2, seed=seed), load(vae, data)
    trials: dict[str, Any] = {}
    for name, options in TRIALS.items():
        arm = fitted(fresh(model), photos, setting.mixed_precision, **copy.deepcopy(options))
        curve = run(arm, setting, seconds)
        trials[name] = {"options": options, "curve": [asdict(point) for point in curve]}
        record.save("fitted_recipe", {"model": vae, "seconds": seconds, "trials": trials})


if __name__ == "__main__":
    typer.run(main)
