"""The VAEs that people use, by one command wherever there is a network: what a latent op costs on each.

    python benchmarks/fetch_data.py                    # Kodak and photographs, once
    python benchmarks/public_vaes.py                   # all of public_vaes.yaml; goes on where it was stopped
    python benchmarks/public_vaes.py --only "SDXL,FLUX.1"
    python benchmarks/tables.py                        # the table in docs/benchmarks.md

For each VAE: the reconstruction by both protocols, and for every element of d4 the round trip with the plain
latent op, with a fitted one, and what decoding, moving and encoding again gives. LPIPS and rFID come with
`pip install "equivae[metrics]"`. A VAE that cannot be had is named, with what to do, and the others are
measured. Results are kept after each, in `results/public_vaes.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

import equivae
import record
from equivae.errors import InputError
from fetch_data import DATA

HERE = Path(__file__).parent
SETTING = ("images", "photos", "resolution", "transforms", "kernel_size", "precision")


def measure(
    vae: nn.Module, images: Path, photos: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """The numbers of one VAE; PSNR in dB."""
    shared = {
        "resolution": options.resolution,
        "max_samples": options.images,
        "eval_batch_size": options.batch_size,
        "progress": False,
    }
    report = equivae.evaluate(
        vae,
        images,
        options.transforms.split(","),
        protocol="imagenet",
        reencode=True,
        sweep_samples=0,
        panels=0,
        **shared,
    )
    plain = report.metrics
    assert plain.imagenet is not None
    elements = [name for name in plain.transforms if name != "identity"]
    fitted = {
        name: equivae.fit_latent_op(
            vae,
            name,
            photos,
            options.kernel_size,
            resolution=options.resolution,
            max_samples=options.photos,
            progress=False,
        )
        for name in elements
    }
    found = equivae.evaluate(
        vae, images, list(fitted.values()), protocol="imagenet", sweep_samples=0, panels=0, **shared
    ).metrics
    protocol = plain.imagenet
    return {
        "images": plain.images,
        "reconstruction": {
            "psnr": plain.reconstruction_psnr,
            "imagenet_psnr": protocol.psnr,
            "imagenet_ssim": protocol.ssim,
            "imagenet_lpips": protocol.lpips,
            "imagenet_rfid": protocol.rfid,
        },
        "transforms": {
            name: {
                "plain": _both(plain.transforms[name]),
                "fitted": _both(found.transforms[fitted[name].name]),
                "reencoded_psnr": plain.transforms[name].reencoded_psnr,
                "ceiling_psnr": plain.transforms[name].ceiling_psnr,
            }
            for name in elements
        },
        "notes": list(plain.notes),
    }


def _both(one: Any) -> dict[str, float]:
    return {"psnr": one.round_trip_psnr, "imagenet_psnr": one.imagenet.psnr}


def load(entry: dict[str, Any], precision: str, device: str) -> nn.Module:
    """`InputError` with what to do where it cannot be had."""
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    try:
        vae = equivae.load_vae(
            entry["model"], subfolder=entry.get("subfolder", "vae"), torch_dtype=dtype
        )
    except (InputError, OSError) as error:
        terms = ""
        if entry.get("gated"):
            terms = (
                f" It is gated: accept its terms at https://huggingface.co/{entry['model']}, then "
                "`hf auth login`."
            )
        raise InputError(f"{str(error).splitlines()[0]}{terms}") from error
    return vae.eval().to(device)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", type=Path, default=HERE / "public_vaes.yaml", dest="listed")
    parser.add_argument("--only", help="names in that file, comma-separated")
    parser.add_argument(
        "--data", type=Path, default=DATA, help="the folder with kodak/ and photos/"
    )
    parser.add_argument("--images", type=int, default=24, help="to measure on")
    parser.add_argument("--photos", type=int, default=150, help="to fit on")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--transforms", default="d4", help="comma-separated, groups too")
    parser.add_argument("--kernel_size", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--output", type=Path, default=record.RESULTS / "public_vaes.json")
    options = parser.parse_args(arguments)
    listed = {one["name"]: one for one in yaml.safe_load(options.listed.read_text())}
    wanted = options.only.split(",") if options.only else list(listed)
    if unknown := [name for name in wanted if name not in listed]:
        parser.error(f"{options.listed} has no {unknown[0]!r}; it has {', '.join(listed)}")
    for folder in ("kodak", "photos"):
        if not (options.data / folder).is_dir():
            parser.error(f"{options.data / folder} is missing: run python benchmarks/fetch_data.py")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    setting = {key: getattr(options, key) for key in SETTING}
    known = json.loads(options.output.read_text()) if options.output.is_file() else {}
    if known and known["setting"] != setting:
        parser.error(
            f"{options.output} was measured with {known['setting']}; name another --output"
        )
    found, failed = known.get("vaes", {}), False
    for name in wanted:
        if name in found:
            print(f"{name}: measured already.")
            continue
        try:
            vae = load(listed[name], options.precision, device)
        except InputError as error:
            failed = True
            print(f"{name}: {error}")
            continue
        numbers = measure(vae, options.data / "kodak", options.data / "photos", options)
        found[name] = {"model": listed[name]["model"], **numbers}
        content = {"setting": setting, "vaes": found}
        record.save(options.output.stem, content, options.output.parent)
        print(f"{name}: reconstruction {numbers['reconstruction']['psnr']:.2f} dB.", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
