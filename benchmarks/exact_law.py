"""Latent ops that keep the law of their group exactly, beside the closed form, a network and re-encoding.

    python benchmarks/exact_law.py --only rot180 --seconds 200
    python benchmarks/exact_law.py --only d4 --seconds 150 --measured rot180,hflip,rot90

TAEF2, fitted on the photographs of `latent_operators.py --table` and measured on its Kodak images, so that
the rows lie beside that table's. Rows are kept in `results/exact_law.json`. Seconds are processor seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import equivae
import record
from equivae.autoencoder import measuring
from equivae.operators.decoding import decoded_psnr
from latent_operators import evenly
from sotemix_rot180 import DATA, images
from taef2 import load_taef2

RESULTS = record.RESULTS / "exact_law.json"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="with taef2, photos and kodak")
    parser.add_argument("--only", default="rot180", help="a transform, or a group")
    parser.add_argument("--measured", default="", help="elements of the group to measure")
    parser.add_argument("--photos", type=int, default=160)
    parser.add_argument("--every", type=int, default=2, help="every so many-th Kodak image")
    parser.add_argument("--steps", type=int, default=110, help="on the decoded error")
    parser.add_argument("--seconds", type=float, default=300.0, help="that end the steps")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--network", default="small")
    parser.add_argument("--kernel_size", type=int, default=5)
    return parser.parse_args()


def fitted(vae: Any, photos: torch.Tensor, given: argparse.Namespace) -> dict[str, Any]:
    """The latent ops by the names of their transforms."""
    settings = {
        "method": "conjugation",
        "network": given.network,
        "objective": "decoded",
        "max_train_steps": given.steps,
        "max_seconds": given.seconds,
        "learning_rate": given.learning_rate,
        "mixed_precision": "bf16",
        "progress": False,
    }
    if given.only not in equivae.list_groups():
        op = equivae.fit_latent_op(vae, given.only, photos, given.kernel_size, **settings)
        return {given.only: op}
    group = equivae.fit_latent_group(vae, given.only, photos, given.kernel_size, **settings)
    names = given.measured.split(",") if given.measured else list(group.transforms)
    return {name: group[name] for name in names if name != "identity"}


def main() -> None:
    given = options()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vae = load_taef2(given.data / "taef2").requires_grad_(False)
    vae = vae.to(memory_format=torch.channels_last)
    view, test = equivae.Autoencoder(vae), images(str(given.data / "kodak"), 256)[:: given.every]
    photos = evenly(images(str(given.data / "photos"), 128), given.photos)
    began = time.process_time()
    ops = fitted(vae, photos, given)
    seconds = round(time.process_time() - began)
    with measuring(vae):
        latents = torch.cat([view.encode(x) for x in test.split(4)])
    for name, op in ops.items():
        batches = (
            (op.latent(z), op.pixel(x), None)
            for z, x in zip(latents.split(4), test.split(4), strict=True)
        )
        z = latents[:1].double()
        with torch.no_grad():
            back = float((op.inverse.latent(op.latent(z)) - z).abs().max() / z.abs().max())
            started = time.process_time()
            op.latent(latents[:1])
            milliseconds = round(1e3 * (time.process_time() - started), 1)
            row: dict[str, Any] = {
                "fit": given.only,
                "transform": name,
                "psnr": round(decoded_psnr(view, batches), 2),
            }
        row |= {"law": back, "seconds": seconds, "steps": given.steps, "ms": milliseconds}
        row |= {"photos": len(photos), "images": len(test), "command": record.command()}
        row |= {"candidates": op.report.to_dict()["candidates"], "date": record.today()}
        print(json.dumps(row), flush=True)
        keep(row)


def keep(row: dict[str, Any]) -> None:
    """Put a row into the results, in place of an earlier one of the same fit and transform."""
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else []
    key = (row["fit"], row["transform"])
    rows = [one for one in rows if (one["fit"], one["transform"]) != key]
    record.save(RESULTS.stem, {"rows": [*rows, row]})


if __name__ == "__main__":
    main()
