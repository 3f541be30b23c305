"""A short fine-tune of symmetrized autoencoders: what the seam costs before it and after it.

    python benchmarks/symmetrized_finetune.py

TAEF2. The context's latent ops are fitted on photographs, then the decoder and these ops learn on random
crops, with the recipe `symmetrized`; the encoder stays. Measured on Kodak images, centre-cropped at 256 px.
Seconds are those of the processor, on one thread. Rows of other groups stay in the result file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import equivae
import record
from equivae.evaluation.metrics import MeasureOptions, measure
from equivae.symmetry.domain import lattice_group
from taef2 import load_taef2


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=record.DATA, help="with taef2, photos and kodak"
    )
    parser.add_argument("--groups", default="hflip,d2,d4")
    parser.add_argument("--photos", type=int, default=60, help="for the fit")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--images", type=int, default=8, help="of Kodak's 24")
    return parser.parse_args()


def main() -> None:
    given = options()
    torch.set_num_threads(1)
    kodak = equivae.data.load_images(given.data / "kodak", resolution=256, max_samples=given.images)
    plain = load_taef2(given.data / "taef2")
    rows: list[dict[str, Any]] = _kept()
    for group in given.groups.split(","):
        began = time.process_time()
        made = equivae.symmetrize(
            plain,
            group,
            images=given.data / "photos",
            resolution=128,
            max_samples=given.photos,
            magnitude=1,
            progress=False,
        )
        fitted = time.process_time() - began
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            result = equivae.finetune(
                made,
                given.data / "photos",
                # The law is exact, so that one element's numbers are every element's.
                [t for t in lattice_group(group) if t.name != "identity"][:1],
                Path(folder) / "out",
                recipe="symmetrized",
                resolution=256,
                crop_size=128,
                max_train_steps=given.steps,
                train_batch_size=4,
                max_eval_samples=2,
                validation_split=0.01,
                validation_steps=10**6,
                checkpointing_steps=10**6,
                progress=False,
            )
            trained = time.process_time() - began
        row = {"group": group, "fit_seconds": round(fitted), "seconds": round(trained)}
        row |= {"steps": given.steps, "margin": made.margin, "seam": made.seam}
        for name, one in (("untouched", plain), ("symmetrized", made), ("tuned", result.vae)):
            quick = MeasureOptions(ceiling=False, progress=False)
            found = measure(equivae.Autoencoder(one), kodak, [], quick)
            row[name] = round(found.reconstruction_psnr, 3)
        row |= {"command": record.command(), "date": record.today()}
        rows = [*(one for one in rows if one["group"] != group), row]
        print(row, flush=True)
        record.save("symmetrized_finetune", {"images": given.images, "rows": rows})


def _kept() -> list[dict[str, Any]]:
    """The rows of earlier runs, for other groups."""
    path = record.RESULTS / "symmetrized_finetune.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.is_file() else []
    return rows


if __name__ == "__main__":
    main()
