"""Symmetrized autoencoders: what the group, the margin and the width of the seam do to reconstruction.

    python benchmarks/symmetrize.py
    python benchmarks/symmetrize.py --groups d4 --margins 2,3,4,6 --kernel_size 5

TAEF2, the context's latent ops fitted on photographs at 128 px, measured on Kodak images, centre-cropped
at 256 px. d4's ops are fitted once; those of the other groups are among them. Every row is kept in
`benchmarks/results/symmetrize.json`. The parts of an image are decoded once for a margin and blended with
every width of the seam; times are processor seconds on one thread, of a call that does all of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import equivae
import record
from equivae.autoencoder import evaluating
from equivae.operators import load_latent_op
from equivae.symmetry import SymmetrizedVAE
from equivae.symmetry.domain import lattice_group
from equivae.units import psnr
from taef2 import load_taef2


class Kept(equivae.Autoencoder):
    """A view that decodes the same latents once."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__(module)
        self.found: dict[bytes, Tensor] = {}

    def decode(self, latents: Tensor, *, chunk_size: int | None = None) -> Tensor:
        if latents.requires_grad:  # the search for the VAE's factor
            return super().decode(latents, chunk_size=chunk_size)
        key = hashlib.sha256(latents.contiguous().numpy().tobytes()).digest()
        if key not in self.found:
            self.found[key] = super().decode(latents, chunk_size=chunk_size)
        return self.found[key]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=record.DATA, help="with taef2, photos and kodak"
    )
    parser.add_argument("--groups", default="c2,hflip,d2,c4,d4")
    parser.add_argument("--margins", default="2,3,4,6")
    parser.add_argument("--seams", default="0,8,16,24,32,48,all")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--kernel_size", type=int, default=7)
    parser.add_argument("--magnitude", type=int, default=3)
    parser.add_argument("--photos", type=int, default=90)
    parser.add_argument("--images", type=int, default=8, help="of Kodak's 24")
    parser.add_argument("--latent_ops", type=Path, help="keep the fitted ops here, or take them")
    return parser.parse_args()


def context_of(vae: torch.nn.Module, asked: argparse.Namespace) -> dict[str, equivae.Transform]:
    """The latent ops of d4, fitted or read."""
    names = [element.name for element in lattice_group("d4") if element.name != "identity"]
    if asked.latent_ops is not None and asked.latent_ops.is_dir():
        return {name: load_latent_op(asked.latent_ops / name) for name in names}
    photos = equivae.data.load_images(
        asked.data / "photos", resolution=128, max_samples=asked.photos
    )
    fitted = equivae.fit_latent_group(
        vae, "d4", photos, asked.kernel_size, magnitude=asked.magnitude, progress=False
    )
    if asked.latent_ops is not None:
        for name in names:
            fitted[name].save(asked.latent_ops / name)  # type: ignore[attr-defined]
    return {name: fitted[name] for name in names}


def mean_error(decoded: Tensor, images: Tensor) -> float:
    return float((decoded.clamp(-1, 1) - images).div(2).square().mean())


@torch.no_grad()
def rows_of(
    vae: torch.nn.Module, group: str, images: Tensor, context: dict[str, Any], asked: Any
) -> list[dict[str, Any]]:
    """Every margin and every seam of one group."""
    elements = {element.name for element in lattice_group(group)}
    own = {name: op for name, op in context.items() if name in elements}
    found = []
    for margin in map(int, asked.margins.split(",")):
        made = SymmetrizedVAE(vae, group, transforms=own, margin=margin, passes=asked.passes)
        view = equivae.Autoencoder(made.eval())
        made._view = Kept(vae)
        began = time.process_time()
        latents = [view.encode(part) for part in images.split(2)]
        decoded = [view.decode(z) for z in latents]
        seconds = time.process_time() - began
        for seam in (None if one == "all" else int(one) for one in asked.seams.split(",")):
            made.seam = seam
            if seam is not None and seam > 2 * margin * view.factor:
                continue  # the ramp has to fit into the margin
            decoded = [view.decode(z) for z in latents]
            found.append(
                {
                    "group": group,
                    "margin": margin,
                    "seam": seam,
                    "passes": asked.passes,
                    "kernel_size": asked.kernel_size,
                    "magnitude": asked.magnitude,
                    "psnr": psnr(mean_error(torch.cat(decoded), images)),
                    "cells": made.cost(*images.shape[-2:]),
                    "seconds": seconds,
                }
            )
    return found


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    vae = load_taef2(asked.data / "taef2")
    kodak = equivae.data.load_images(asked.data / "kodak", resolution=256)
    step = max(1, len(kodak) // asked.images)
    images = torch.stack([kodak[i * step] for i in range(asked.images)])
    context = context_of(vae, asked)
    with evaluating(vae), torch.no_grad():
        view = equivae.Autoencoder(vae)
        view.decode(view.encode(images[:1]))
        began = time.process_time()
        decoded = torch.cat([view.decode(view.encode(part)) for part in images.split(2)])
        plain_seconds = time.process_time() - began
    plain = psnr(mean_error(decoded, images))
    path = record.RESULTS / "symmetrize.json"
    old = json.loads(path.read_text())["rows"] if path.is_file() else []
    keys = ("group", "margin", "seam", "passes", "kernel_size", "magnitude")
    for group in asked.groups.split(","):
        for row in rows_of(vae, group, images, context, asked):
            row["loss"] = row["psnr"] - plain
            row["time"] = row.pop("seconds") / plain_seconds
            row |= {"images": asked.images, "command": record.command(), "date": record.today()}
            print(json.dumps(row), flush=True)
            old = [one for one in old if any(one[key] != row[key] for key in keys)] + [row]
            record.save("symmetrize", {"plain_psnr": plain, "photos": asked.photos, "rows": old})


if __name__ == "__main__":
    main()
