"""The yardstick of every latent op: decode, turn the picture, encode it again, decode. Costs no training.

python benchmarks/reencoded.py --vae taef2
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch

import equivae
import record
from equivae.evaluation.metrics import psnr
from sotemix_rot180 import DATA, images, load


def error(vae: torch.nn.Module, test: torch.Tensor, name: str) -> tuple[float, float]:
    """Errors in [0, 1] units: of the reconstruction, and of `D(E(T D(E(x))))` against `T x`."""
    view, transform = equivae.Autoencoder(vae), equivae.get_transform(name)
    plain, again = [], []
    with torch.no_grad():
        for image in test.split(1):
            decoded = view.decode(view.encode(image)).clamp(-1, 1)
            turned = view.decode(view.encode(transform.pixel(decoded))).clamp(-1, 1)
            plain.append(float((decoded - image).div(2).square().mean()))
            again.append(float((turned - transform.pixel(image)).div(2).square().mean()))
    return math.fsum(plain) / len(plain), math.fsum(again) / len(again)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--vae", choices=("taef2", "embedded"), action="append")
    parser.add_argument("--transform", default="rot180")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = record.RESULTS / "reencoded.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    for name in options.vae or ("taef2", "embedded"):
        test = images(str(options.data / "kodak"), 256)
        plain, again = error(load(name, options.data), test, options.transform)
        rows = [r for r in rows if (r["vae"], r["transform"]) != (name, options.transform)]
        rows.append(
            {
                "vae": name,
                "transform": options.transform,
                "images": len(test),
                "reconstruction_psnr": psnr(plain),
                "round_trip_psnr": psnr(again),
            }
        )
        record.save("reencoded", {"rows": rows})
        print(rows[-1])


if __name__ == "__main__":
    main()
