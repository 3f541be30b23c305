"""Fitted latent operators, symmetrized autoencoders and fine-tuning from a fit, on TAEF2 or the embedded VAE.

    python benchmarks/latent_operators.py --threads 1 --table --images 160 --every 2
    python benchmarks/latent_operators.py --threads 1 --table --vae embedded --images 160 --every 2
    python benchmarks/latent_operators.py --fit
    python benchmarks/latent_operators.py --fit --only rot180 --kernel_sizes 1,3,7,9 --images 300
    python benchmarks/latent_operators.py --symmetrize c2,hflip,d2,d4
    python benchmarks/latent_operators.py --finetune 240 --published 720

Every row is kept in `benchmarks/results/latent_operators.json`, those of `--table` in
`latent_operators_table.json`, with the command that made it, and the table of all of them is printed; rows of
`--table` that are there with the same settings are not measured again. Fine-tunes run through
`sotemix_rot180.py`, beside the published loop. `fetch_data.py` fetches the data: TAEF2's
weights, BSDS500 photographs to fit on, and the 24 Kodak images, centre-cropped at 256 px, to test on. Seconds
are processor seconds on one thread; a fit's wall time is given too.
"""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path
from typing import Annotated, Any, Optional

import torch
import typer
from torch import Tensor, nn

import comparison
import equivae
import operator_table
import record
import sotemix_rot180
from curves import Setting
from equivae.autoencoder import evaluating
from equivae.evaluation.metrics import MeasureOptions, measure
from sotemix_rot180 import DATA, images, load, option

RESULTS = record.RESULTS / "latent_operators.json"
TABLE = record.RESULTS / "latent_operators_table.json"
TRANSFORMS = ("rot180", "hflip", "rot90")


def fit(
    vae: nn.Module, photos: Tensor, test: Tensor, transform: str, size: int, method: str, dtype: str
) -> dict[str, Any]:
    """The round trip under the plain and under a fitted latent op."""
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    began, busy = time.perf_counter(), time.process_time()
    fitted = equivae.fit_latent_op(
        vae, transform, photos, size, method=method, mixed_precision=dtype, progress=False
    )
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    changed = [name for name, value in vae.state_dict().items() if not value.equal(before[name])]
    if changed:
        raise SystemExit(f"the fit changed the VAE: {changed}")
    metrics = _measure(vae, test, [equivae.get_transform(transform), fitted])
    assert fitted.report is not None
    return {
        "transform": transform,
        "kernel_size": size,
        "method": method,
        "images": len(photos),
        "wall_seconds": round(seconds, 1),
        "processor_seconds": round(busy, 1),
        "threads": torch.get_num_threads(),
        "latent_error": fitted.report.latent_error,
        "inverse_consistency": fitted.report.inverse_consistency,
        "reconstruction_psnr": metrics.reconstruction_psnr,
        "grid_move_psnr": metrics.transforms[transform].round_trip_psnr,
        "fitted_psnr": metrics.transforms[fitted.name].round_trip_psnr,
        "ceiling_psnr": _ceiling(vae, test, equivae.get_transform(transform)),
    }


def symmetrize(vae: nn.Module, photos: Tensor, test: Tensor, group: str) -> dict[str, Any]:
    """The exact law, reconstruction and cost of a symmetrized autoencoder."""
    began = time.process_time()
    made = equivae.symmetrize(vae, group, images=photos, progress=False)
    busy = time.process_time() - began
    # The law is exact, so that one element's round trip is every element's.
    metrics = _measure(made, test, [t for t in made.group if t.name != "identity"][:1])
    assert made.report is not None
    row: dict[str, Any] = {
        "group": group,
        "images": len(photos),
        "processor_seconds": round(busy, 1),
        "margin": made.report.margin,
        "cost_in_cells": made.cost(*test.shape[-2:]),
        "cost_in_time": _seconds(made, test) / _seconds(vae, test),
        "untouched_psnr": _measure(vae, test, []).reconstruction_psnr,
        "reconstruction_psnr": metrics.reconstruction_psnr,
        "round_trip_psnr": {n: t.round_trip_psnr for n, t in metrics.transforms.items()},
        "encoder_relative_error": max(
            t.encoder_relative_error for t in metrics.transforms.values()
        ),
        "decoder_error": _decoder_error(made, test),
    }
    average = equivae.symmetrize(vae, group, "average")
    row["average_psnr"] = _measure(average, test, []).reconstruction_psnr
    return row


def _measure(vae: nn.Module, test: Tensor, transforms: list[Any]) -> Any:
    view, dataset = equivae.Autoencoder(vae), equivae.data.load_images(test)
    return measure(view, dataset, transforms, MeasureOptions(ceiling=False, progress=False))


@torch.no_grad()
def _ceiling(vae: nn.Module, test: Tensor, transform: equivae.Transform) -> float:
    """PSNR of `D(E(T x))`: of moving the image instead of the latent."""
    return float(_measure(vae, transform.pixel(test), []).reconstruction_psnr)


@torch.no_grad()
def _decoder_error(vae: Any, test: Tensor) -> float:
    """`max |D(S z) - T D(z)|` on the first images."""
    view = equivae.Autoencoder(vae)
    z = view.encode(test[:2])
    decoded = view.decode(z)
    return max(float((view.decode(t.latent(z)) - t.pixel(decoded)).abs().max()) for t in vae.group)


@torch.no_grad()
def _seconds(vae: nn.Module, test: Tensor) -> float:
    """Processor seconds for one encode and decode of four images, the least of three."""
    view = equivae.Autoencoder(vae)
    x = test[:4].contiguous(memory_format=torch.channels_last)
    found = []
    with evaluating(vae):
        view.decode(view.encode(x))
        for _ in range(3):
            began = time.process_time()
            view.decode(view.encode(x))
            found.append(time.process_time() - began)
    return min(found)


def evenly(photos: Tensor, count: int) -> Tensor:
    """So many photographs of all, evenly spaced."""
    return photos[:: max(1, len(photos) // count)][:count]


def table_row(
    vae: str,
    model: nn.Module,
    data: Path,
    count: int,
    test: Tensor,
    transform: str,
    steps: operator_table.Steps,
    kept: Path | None,
) -> None:
    """Measure a row of the table, unless one of the same settings is there."""
    row = operator_table.ROWS[transform]
    asked = {"vae": vae, "transform": transform, "row": vars(row), "steps": vars(steps)}
    asked |= {"fit_images": count, "test_images": len(test)}
    if any({**one, **asked} == one for one in _rows()):
        return
    photos = evenly(_photographs(str(data / "photos"), row.resolution), count)
    folder = None if kept is None else kept / vae / transform
    found = operator_table.measure_row(model, photos, test, transform, steps, row, folder)
    found |= {"vae": vae, **_origin()}
    key = (vae, transform)
    rows = [one for one in _rows() if (one["vae"], one["transform"]) != key]
    order = {name: i for i, name in enumerate(operator_table.ROWS)}
    rows = sorted([*rows, found], key=lambda one: (one["vae"] != "taef2", order[one["transform"]]))
    record.save(TABLE.stem, {"rows": rows})
    print(json.dumps(found), flush=True)


@functools.cache
def _photographs(folder: str, resolution: int) -> Tensor:
    return images(folder, resolution)


def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(TABLE.read_text())["rows"] if TABLE.is_file() else []
    return rows


def _origin() -> dict[str, str]:
    command = record.command()
    return {"command": command, "date": record.today()}


def keep(part: str, row: dict[str, Any], keys: tuple[str, ...]) -> None:
    """Put a row into the results, in place of an earlier one of the same keys."""
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    row |= _origin()
    rows = [old for old in results.get(part, []) if any(old.get(key) != row[key] for key in keys)]
    parts = {name: results.get(name, []) for name in ("fit", "symmetrize")}
    record.save("latent_operators", {**parts, part: [*rows, row]})
    print(json.dumps(row), flush=True)


def print_table(results: dict[str, Any]) -> None:
    for row in results.get("fit", []):
        print(
            f"{row['vae']:8} {row['transform']:7} {row['method']} {row['kernel_size']}x"
            f"{row['kernel_size']}, {row['images']} images: grid {row['grid_move_psnr']:.2f}, fitted "
            f"{row['fitted_psnr']:.2f}, ceiling {row['ceiling_psnr']:.2f}, reconstruction "
            f"{row['reconstruction_psnr']:.2f} dB; {row['wall_seconds']:.0f} s on {row['threads']} threads"
        )
    for row in results.get("symmetrize", []):
        print(
            f"{row['vae']:8} symmetrized {row['group']:6}: reconstruction "
            f"{row['reconstruction_psnr']:.2f} dB (untouched {row['untouched_psnr']:.2f}, averaged "
            f"{row['average_psnr']:.2f}), errors {row['encoder_relative_error']:.0e} and "
            f"{row['decoder_error']:.0e}, margin {row['margin']}, cost {row['cost_in_cells']:.2f}x cells, "
            f"{row['cost_in_time']:.2f}x time"
        )


def main(
    do_fit: Annotated[bool, typer.Option("--fit", help="fit operators")] = False,
    do_table: Annotated[
        bool, typer.Option("--table", help="latent ops against re-encoding")
    ] = False,
    rows: Annotated[str, option("rows", "transforms of the table, separated by ;")] = ";".join(
        operator_table.ROWS
    ),
    network: Annotated[str, option("network", "small, medium or large")] = "medium",
    steps: Annotated[int, option("steps", "of the networks, on the decoded error")] = 110,
    seconds: Annotated[float, option("seconds", "that end the steps of a network")] = 300.0,
    ops: Annotated[
        Optional[Path], option("ops", "a folder to keep the table's latent ops in")
    ] = None,
    resolution: Annotated[int, option("resolution", "of the photographs of --fit")] = 256,
    every: Annotated[int, option("every", "test on every so many-th Kodak image")] = 1,
    groups: Annotated[str, option("symmetrize", "groups, such as c2,hflip,d2,c4,d4")] = "",
    finetune: Annotated[float, option("finetune", "seconds of the fine-tune from a fit")] = 0.0,
    published: Annotated[float, option("published", "seconds of the published loop")] = 0.0,
    vae: Annotated[str, option("vae", "taef2, embedded, or what load_vae takes")] = "taef2",
    only: Annotated[str, option("only", "transforms to fit")] = ",".join(TRANSFORMS),
    kernel_sizes: Annotated[str, option("kernel_sizes", "comma-separated")] = "5",
    method: Annotated[str, option("method", "linear or network")] = "linear",
    count: Annotated[int, option("images", "photographs to fit on, evenly spaced")] = 150,
    mixed_precision: Annotated[str, option("mixed_precision", "of fits and fine-tunes")] = "bf16",
    threads: Annotated[int, option("threads", "of fits and symmetrizing")] = 2,
    data: Annotated[Path, option("data", "the folder that holds taef2/, photos/, kodak/")] = DATA,
) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = load(vae, data)
    test = images(str(data / "kodak"), 256)[::every]
    if do_table:
        settings = operator_table.Steps(network, steps, seconds)
        for transform in rows.split(";"):
            table_row(vae, model, data, count, test, transform, settings, ops)
    photos = images(str(data / "photos"), resolution) if do_fit or groups or finetune else test
    some = evenly(photos, count)
    if do_fit:
        for transform in only.split(","):
            for size in kernel_sizes.split(","):
                row = fit(model, some, test, transform, int(size), method, mixed_precision)
                keys = ("vae", "transform", "kernel_size", "method", "images")
                keep("fit", {"vae": vae, **row}, keys)
    for group in groups.split(",") if groups else []:
        keep("symmetrize", {"vae": vae, **symmetrize(model, some, test, group)}, ("vae", "group"))
    if finetune:
        torch.set_num_threads(1)
        setting = Setting(photos, test, mixed_precision=mixed_precision)
        budgets = {"fitted": finetune}
        if published:
            budgets |= {"published": published, "published_best": published}
        print(comparison.table(sotemix_rot180.compare(model, vae, setting, budgets)))
    if do_table:
        print(
            *("| " + " | ".join(line) + " |" for line in operator_table.as_text(_rows())), sep="\n"
        )
    if RESULTS.is_file():
        print_table(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    typer.run(main)
