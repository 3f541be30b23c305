"""Fitted latent operators, symmetrized autoencoders and fine-tuning from a fit, on TAEF2 and Kodak.

    python benchmarks/latent_operators.py --fit --symmetrize c2,hflip,d2
    python benchmarks/latent_operators.py --finetune 600

Prints a table and writes `benchmarks/results/latent_operators.json`; parts that were run before stay in it.
The data lie in `shared/data` beside the repository: TAEF2's weights, BSDS500 photographs to fit on, and the
24 Kodak images, centre-cropped at 256 px, to test on.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import equivae
from equivae.data.sources import ImageDataset
from equivae.evaluation.metrics import MeasureOptions, measure
from equivae.operators import evaluating, operators_of

sys.path.insert(0, str(Path(__file__).parent))
from taef2 import load_taef2

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared" / "data"
RESULTS = HERE / "results" / "latent_operators.json"
TRANSFORMS = ("rot180", "hflip", "rot90")


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    vae = load_taef2(options.data_dir / "taef2").to(memory_format=torch.channels_last)
    photos = equivae.data.load_images(options.data_dir / "photos", resolution=options.resolution)
    step = max(1, len(photos) // options.images)
    photos = photos.subset(range(0, len(photos), step)[: options.images])
    kodak = equivae.data.load_images(
        options.data_dir / "kodak", resolution=256, max_samples=options.test_images
    )
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if options.fit:
        _run(results, "fit", options, fit(vae, photos, kodak, options))
    if options.symmetrize:
        _run(results, "symmetrize", options, symmetrize(vae, photos, kodak, options))
    if options.finetune:
        _run(results, "finetune", options, finetune(vae, photos, kodak, options))
        _draw(results["finetune"]["rows"])
    print_table(results)


def fit(
    vae: nn.Module, photos: ImageDataset, kodak: ImageDataset, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Round trips under the grid move and under fitted operators of several sizes."""
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    for name in TRANSFORMS:
        for kernel_size in options.kernel_sizes:
            began, busy = time.perf_counter(), time.process_time()
            fitted = equivae.fit_latent_op(
                vae, name, photos, kernel_size, method=options.method, progress=False
            )
            seconds, busy = time.perf_counter() - began, time.process_time() - busy
            metrics = _round_trips(vae, kodak, [equivae.get_transform(name), fitted])
            assert fitted.report is not None
            yield {
                "transform": name,
                "kernel_size": kernel_size,
                "method": options.method,
                "seconds": round(seconds, 1),
                "processor_seconds": round(busy, 1),
                "latent_error": fitted.report.latent_error,
                "inverse_consistency": fitted.report.inverse_consistency,
                "reconstruction_psnr": metrics.reconstruction_psnr,
                "grid_move_psnr": metrics.transforms[name].round_trip_psnr,
                "fitted_psnr": metrics.transforms[fitted.name].round_trip_psnr,
                "encoder_relative_error": metrics.transforms[fitted.name].encoder_relative_error,
            }
    changed = [name for name, value in vae.state_dict().items() if not value.equal(before[name])]
    if changed:
        raise SystemExit(f"the fit changed the VAE: {changed}")


def symmetrize(
    vae: nn.Module, photos: ImageDataset, kodak: ImageDataset, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Exact law, reconstruction and cost of symmetrized autoencoders."""
    plain = _seconds(vae, kodak)
    for group in options.symmetrize.split(","):
        began = time.perf_counter()
        made = equivae.symmetrize(vae, group, images=photos, progress=False)
        seconds = time.perf_counter() - began
        elements = [t for t in made.group if t.name != "identity"]
        metrics = _round_trips(made, kodak, elements)
        assert made.report is not None
        row = {
            "group": group,
            "seconds": round(seconds, 1),
            "margin": made.report.margin,
            "cost_in_cells": made.cost(256, 256),
            "cost_in_time": _seconds(made, kodak) / plain,
            "margins": made.report.margins,
            "reconstruction_psnr": metrics.reconstruction_psnr,
            "round_trip_psnr": {n: t.round_trip_psnr for n, t in metrics.transforms.items()},
            "encoder_relative_error": max(
                t.encoder_relative_error for t in metrics.transforms.values()
            ),
            "decoder_error": _decoder_error(made, kodak),
        }
        if group == "c2":
            average = equivae.symmetrize(vae, group, "average")
            row["average_psnr"] = _round_trips(average, kodak, []).reconstruction_psnr
        yield row


def finetune(
    vae: nn.Module, photos: ImageDataset, kodak: ImageDataset, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Round trip and reconstruction against seconds: from a fit, and the published recipe at two rates."""
    images = torch.stack([photos[i] for i in range(len(photos))])
    began = time.perf_counter()
    fitted = equivae.fit_latent_op(vae, "rot180", photos, progress=False)
    fit_seconds = time.perf_counter() - began
    plain = equivae.get_transform("rot180")
    runs: dict[str, Callable[[], list[dict[str, float]]]] = {
        f"fitted, decoder + operator, lr {options.learning_rate:g}": lambda: _train(
            vae, copy.deepcopy(fitted), images, kodak, options.learning_rate, fit_seconds, options
        ),
        "published, all weights, lr 5e-05": lambda: _train(
            vae, plain, images, kodak, 5e-5, 0.0, options
        ),
        "published, all weights, lr 0.0003": lambda: _train(
            vae, plain, images, kodak, 3e-4, 0.0, options
        ),
    }
    for name, run in runs.items():
        if options.runs and not any(word in name for word in options.runs.split(",")):
            continue
        yield {"recipe": name, "curve": run()}


def _train(
    vae: nn.Module,
    transform: equivae.Transform,
    images: Tensor,
    kodak: ImageDataset,
    learning_rate: float,
    spent: float,
    options: argparse.Namespace,
) -> list[dict[str, float]]:
    """Train for a time, measuring now and then; measuring is not counted.

    A fitted transform trains decoder and operator on cached latents of 128 px crops, one decode per image,
    half of them moved; a plain one is the published loop: all weights, two decodes.
    """
    model = copy.deepcopy(vae)
    view = equivae.Autoencoder(model)
    generator = torch.Generator().manual_seed(options.seed)
    operators = operators_of([transform])
    weights = view.decoder_parameters() if operators else list(model.parameters())
    weights += [p for operator in operators for p in operator.requires_grad_(True).parameters()]
    optimizer = torch.optim.AdamW(weights, learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    objective = equivae.EquivarianceLoss(transform, schedule="sampled" if operators else "dual")
    batch, side = (4 if operators else 3), 128
    trained, step, due = 0.0, 0, 0.0
    curve = []
    while True:
        if trained >= due or trained >= options.finetune:
            metrics = _round_trips(model, kodak, [transform])
            found = metrics.transforms[transform.name]
            point = {
                "seconds": round(trained + spent, 1),
                "steps": step,
                "reconstruction_psnr": metrics.reconstruction_psnr,
                "round_trip_psnr": found.round_trip_psnr,
            }
            curve.append(point)
            print(json.dumps(point), flush=True)
            due += options.finetune / options.points
        if trained >= options.finetune:
            return curve
        began = time.perf_counter()
        for group in optimizer.param_groups:  # warm-up, then cosine over the time given
            share = min(1.0, trained / options.finetune)
            warm = min(1.0, (step + 1) / 20)
            fall = 0.5 * (1 + math.cos(math.pi * share)) if operators else 1.0
            group["lr"] = learning_rate * warm * fall
        rows = torch.randint(len(images), (batch,), generator=generator)
        top, left = torch.randint(images.shape[-1] - side + 1, (2,), generator=generator).tolist()
        x = images[rows, :, top : top + side, left : left + side]
        x = x.contiguous(memory_format=torch.channels_last)
        latents = None
        if operators:
            with torch.no_grad():
                latents = view.encode(x)
        loss = objective(view, x, latents=latents, generator=generator).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trained += time.perf_counter() - began
        step += 1


def _round_trips(vae: nn.Module, images: ImageDataset, transforms: list[Any]) -> Any:
    view = equivae.Autoencoder(vae)
    return measure(view, images, transforms, MeasureOptions(ceiling=False, progress=False))


@torch.no_grad()
def _decoder_error(vae: Any, images: ImageDataset) -> float:
    """`max |D(S z) - T D(z)|` on the first images."""
    view = equivae.Autoencoder(vae)
    x = torch.stack([images[i] for i in range(2)])
    z = view.encode(x)
    decoded = view.decode(z)
    return max(float((view.decode(t.latent(z)) - t.pixel(decoded)).abs().max()) for t in vae.group)


@torch.no_grad()
def _seconds(vae: nn.Module, images: ImageDataset) -> float:
    """Processor seconds for one encode and decode of two images, the least of three."""
    view = equivae.Autoencoder(vae)
    x = torch.stack([images[i] for i in range(2)]).contiguous(memory_format=torch.channels_last)
    found = []
    with evaluating(vae):
        view.decode(view.encode(x))
        for _ in range(3):
            began = time.process_time()
            view.decode(view.encode(x))
            found.append(time.process_time() - began)
    return min(found)


def _run(
    results: dict[str, Any],
    part: str,
    options: argparse.Namespace,
    rows: Iterator[dict[str, Any]],
) -> None:
    """Write the results after every row, so that a run that is cut off leaves what it measured."""
    done: list[dict[str, Any]] = []
    for row in rows:
        print(json.dumps(row), flush=True)
        done.append(row)
        _record(results, part, options, done)


def _record(
    results: dict[str, Any], part: str, options: argparse.Namespace, rows: list[dict[str, Any]]
) -> None:
    results[part] = {
        "command": " ".join(["python", "benchmarks/latent_operators.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads",
        "torch": torch.__version__,
        "seed": options.seed,
        "images": options.images,
        "resolution": options.resolution,
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def print_table(results: dict[str, Any]) -> None:
    for row in results.get("fit", {}).get("rows", []):
        print(
            f"{row['transform']:7} {row['method']} {row['kernel_size']}x{row['kernel_size']}: "
            f"grid {row['grid_move_psnr']:.2f}, fitted {row['fitted_psnr']:.2f}, "
            f"reconstruction {row['reconstruction_psnr']:.2f} dB, fit {row['seconds']:.0f} s"
        )
    for row in results.get("symmetrize", {}).get("rows", []):
        print(
            f"symmetrized {row['group']:6}: reconstruction {row['reconstruction_psnr']:.2f} dB, "
            f"cost {row['cost_in_cells']:.2f}x cells, {row['cost_in_time']:.2f}x time, "
            f"margin {row['margin']}"
        )
    for row in results.get("finetune", {}).get("rows", []):
        last = row["curve"][-1]
        print(
            f"{row['recipe']}: {last['seconds']:.0f} s, round trip {last['round_trip_psnr']:.2f}, "
            f"reconstruction {last['reconstruction_psnr']:.2f} dB"
        )


def _draw(rows: list[dict[str, Any]]) -> None:
    """PSNR against seconds, as PNG beside the results."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), dpi=150)
    axis = figure.subplots()
    for colour, row in zip(("#0969da", "#bf3989", "#6e7781"), rows, strict=False):
        seconds = [point["seconds"] for point in row["curve"]]
        for key, style in (("round_trip_psnr", "-"), ("reconstruction_psnr", ":")):
            values = [point[key] for point in row["curve"]]
            label = row["recipe"] if style == "-" else None
            axis.plot(seconds, values, style, color=colour, label=label, marker="o", markersize=3)
    axis.set_xlabel("seconds")
    axis.set_ylabel("PSNR in dB: round trip (solid), reconstruction (dotted)")
    axis.grid(True, color="#d0d7de", lw=0.5)
    axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    RESULTS.parent.mkdir(exist_ok=True)
    figure.savefig(RESULTS.with_suffix(".png"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fit", action="store_true", help="fit operators and measure round trips")
    parser.add_argument("--symmetrize", default="", help="groups, such as c2,hflip,d2,c4,d4")
    parser.add_argument("--finetune", type=float, default=0.0, help="seconds for every recipe")
    parser.add_argument("--runs", default="", help="words that choose among the fine-tunes")
    parser.add_argument("--learning_rate", type=float, default=3e-4, help="of the fitted start")
    parser.add_argument("--points", type=int, default=6, help="measurements along a fine-tune")
    parser.add_argument(
        "--kernel_sizes", type=lambda s: [int(k) for k in s.split(",")], default=[5]
    )
    parser.add_argument("--method", default="linear", choices=["linear", "network"])
    parser.add_argument("--images", type=int, default=150, help="photographs to fit on")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--test_images", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data_dir", type=Path, default=DATA)
    return parser.parse_args()


if __name__ == "__main__":
    main()
