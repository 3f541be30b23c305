"""`equivae flip-cache`, measured: its error against encoding again on two VAEs, and its throughput.

    python benchmarks/flip_cache.py

Errors: ops are fitted on photographs, and a cache of Kodak images (plain tensors, the images beside them) is
flipped and checked by the command's own `check`. Throughput: SDXL-sized latents (4x128x128, float32) in
kohya's files and in a LightningDiT shard, a 5x5 op; wall-clock and processor seconds, and what one latent
costs in reading, moving and writing alone, beside a plain copy of as many bytes, which says what bounds it.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import equivae
import record
from equivae import caches
from equivae.caches.kohya import Kohya
from equivae.caches.layout import Target
from equivae.caches.op import find_op
from equivae.operators import ConvOperator, FittedTransform
from equivae.units import psnr, unit
from taef2 import load_taef2


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


def cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


# Errors -------------------------------------------------------------------------------------------------


@torch.no_grad()
def errors(
    name: str, vae: nn.Module, photos: Tensor, kodak: Tensor, kernel_size: int
) -> dict[str, Any]:
    """Of the plain and of the fitted flip: latents against encoding again, decoded against the image."""
    began = time.process_time()
    op = equivae.fit_latent_op(vae, "hflip", photos, kernel_size=kernel_size, progress=False)
    fitting = time.process_time() - began
    view = equivae.Autoencoder(vae)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        cache.mkdir()
        for i, image in enumerate(kodak):
            pixels = unit(image).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(cache / f"{i}.png")
            shown = torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1
            save_file({"latents": view.encode(shown[None])[0]}, cache / f"{i}.safetensors")
        report = caches.transform(
            cache, op, scaled=False, check=len(kodak), vae=vae, progress=False
        )
    assert report.check is not None
    flipped = kodak.flip(-1)
    z = view.encode(kodak)

    def decoded(latents: Tensor) -> float:
        images = torch.cat([view.decode(part) for part in latents.split(1)])
        return round(psnr(float((unit(images) - unit(flipped)).square().mean())), 2)

    return {
        "vae": name,
        "plain_error": report.check.plain,
        "fitted_error": report.check.fitted,
        "plain_decoded_db": decoded(z.flip(-1)),
        "fitted_decoded_db": decoded(op.latent(z)),
        "reencoded_decoded_db": decoded(view.encode(flipped)),
        "fit_cpu_seconds": round(fitting, 1),
    }


# Throughput ------------------------------------------------------------------------------------------------


def an_op(channels: int) -> FittedTransform:
    operator = ConvOperator(channels, 5)
    operator.weight.add_(torch.randn_like(operator.weight), alpha=0.05)
    return FittedTransform(equivae.get_transform("hflip"), operator, operator)


def kohya_cache(folder: Path, count: int) -> None:
    latents = torch.randn(8, 4, 128, 128).mul(7.7).numpy()
    for i in range(count):
        sizes = {"original_size": np.array([1024, 1024]), "crop_ltrb": np.array([0, 0, 1024, 1024])}
        np.savez(folder / f"{i:06d}_1024x1024_sdxl.npz", latents=latents[i % 8], **sizes)


def shard_cache(folder: Path, count: int) -> None:
    latents = torch.randn(8, 4, 128, 128).repeat(count // 8, 1, 1, 1)
    tensors = {"latents": latents, "labels": torch.zeros(len(latents), dtype=torch.int64)}
    save_file(tensors, folder / "latents_rank00_shard000.safetensors")


def rest(folder: Path) -> None:
    """Make every file old, as those of a cache that nobody writes are."""
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))


def throughput(
    make: Callable[[Path, int], None], count: int, processes: int, repeats: int
) -> dict[str, Any]:
    """The least processor time of some runs, and of a plain copy of the same bytes before each."""
    runs, copies = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        starting = 0.0
        if processes > 1:
            make(folder, 8 * processes)
            starting, _, _ = flip(folder, processes)
        for _ in range(repeats):
            make(folder, count)
            copies.append(timed(lambda: plain_copy(folder)))
            make(folder, count)
            runs.append(flip(folder, processes))
    used, wall, report = min(runs, key=lambda run: run[0])
    copied, copied_wall = min(copies)
    used -= starting
    return {
        "format": report.format,
        "processes": processes,
        "latents": count,
        "cpu_ms_per_latent": round(used / count * 1e3, 2),
        "latents_a_second_of_two_cores": round(2 * count / used),
        "latents_a_second_by_the_clock": round(count / wall),
        "plain_copy_cpu_ms_per_latent": round(copied / count * 1e3, 2),
        "plain_copy_latents_a_second_by_the_clock": round(count / copied_wall),
        "cpu_seconds_of_starting_processes": round(starting, 2),
    }


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Processor and wall-clock seconds."""
    began, used = time.perf_counter(), cpu_seconds()
    work()
    return cpu_seconds() - used, time.perf_counter() - began


def flip(folder: Path, processes: int) -> tuple[float, float, caches.CacheReport]:
    rest(folder)
    found: list[caches.CacheReport] = []
    used, wall = timed(
        lambda: found.append(
            caches.transform(folder, an_op(4), num_processes=processes, progress=False)
        )
    )
    return used, wall, found[0]


def plain_copy(folder: Path) -> None:
    """Read every file, write it and as many bytes again beside it, and replace it."""
    for path in list(folder.iterdir()):
        content, beside = path.read_bytes(), path.with_suffix(".partial")
        with beside.open("wb") as file:
            file.writelines([content, content])
        beside.replace(path)


def parts(count: int) -> dict[str, float]:
    """Milliseconds of processor time that a latent costs in kohya's files, by what it is spent on."""
    op, form, found = find_op(an_op(4)), Kohya(), {}

    def measure(name: str, work: Callable[[Any], object], items: Sequence[Any]) -> None:
        began = time.process_time()
        for item in items:
            work(item)
        found[name] = round((time.process_time() - began) / count * 1e3, 3)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kohya_cache(folder, count)
        target, files = Target(op, folder), sorted(folder.iterdir())
        op.signature  # noqa: B018
        measure("look", lambda path: (form.owns(path), form.state(path, target)), files)
        measure("read, checksum", lambda path: form.job(path, target), files)
        jobs = [form.job(path, target) for path in files]
        latents = torch.cat([job.latents[0] for job in jobs])
        measure("flip, convolution", op, latents.split(4))
        ready = [(job, [op(one[None])]) for job, one in zip(jobs, latents, strict=True)]
        measure("checksum, write, replace", lambda one: one[0].keep(one[1]), ready)
        kohya_cache(folder, count)
        measure("a plain copy of as many bytes", plain_copy, [folder])
    return found


def main(
    data: Annotated[
        Path, option("data", "the folder that holds taef2/, photos/ and kodak/")
    ] = record.DATA,
    photos: Annotated[int, option("photos", "photographs to fit on")] = 48,
    kodak: Annotated[int, option("kodak", "Kodak images to test on")] = 6,
    resolution: Annotated[int, option("resolution", "side of both")] = 256,
    latents: Annotated[int, option("latents", "SDXL-sized latents to flip")] = 4000,
    processes: Annotated[int, option("processes", "that share the flipping")] = 2,
    repeats: Annotated[int, option("repeats", "of each, of which the fastest counts")] = 3,
) -> None:
    torch.set_num_threads(1)

    def stack(folder: str, count: int) -> Tensor:
        found = equivae.data.load_images(data / folder, resolution=resolution, max_samples=count)
        return torch.stack([found[i] for i in range(len(found))])

    fitting, test = stack("photos", photos), stack("kodak", kodak)
    rows = []
    for name, vae in (("embedded", equivae.zoo.load()), ("taef2", load_taef2(data / "taef2"))):
        rows.append(errors(name, vae, fitting, test, 5))
        print(json.dumps(rows[-1]), flush=True)
    speed = []
    for make in (kohya_cache, shard_cache):
        for count in sorted({1, processes}):
            speed.append(throughput(make, latents, count, repeats))
            print(json.dumps(speed[-1]), flush=True)
    costs = parts(200)
    print(json.dumps(costs))
    content = {
        "photos": photos,
        "kodak": kodak,
        "resolution": resolution,
        "errors": rows,
        "throughput": speed,
        "milliseconds_per_latent": costs,
    }
    print(record.save("flip_cache", content))


if __name__ == "__main__":
    typer.run(main)
