"""What a training step costs as work grows: time per image and peak memory, each against its first point.

    python benchmarks/training_cost.py

The embedded VAE in float32, everything trained, in equivae's own loop: batches of 1 to 16, images of 128 to
1024 px, 1 to 7 transforms decoded by draw (`sampled`) or all of them (`dual`), one and two processes. Every
point is a process of its own, forked from one that has done nothing, on one thread; a time is the mean
processor time of the steps after the first one. Memory is the highest resident memory of that process less
what it held before there was a model; two processes have the mean of both. Points that are there already are
kept (`--forget` measures anew).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import socket
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import equivae
import record
from equivae.training.plan import make_plan
from equivae.training.session import Session
from equivae.training.stages import train
from equivae.training.state import RunState
from equivae.training.student import make_student
from equivae.training.trainer import Hook

FIGURE = Path(__file__).parents[1] / "docs" / "images" / "training-cost.png"
STEPS = 3
MIB = 2**20
SEVEN = ("rot180", "hflip", "vflip", "rot90", "rot270", "transpose", "antitranspose")


@dataclass(frozen=True)
class Point:
    """One run: how much work a step is."""

    batch: int = 4
    side: int = 128
    transforms: int = 1
    processes: int = 1
    options: dict[str, Any] = field(default_factory=dict)


CHUNKS, CHECKPOINTS = {"chunk_size": 1}, {"gradient_checkpointing": True}
SERIES: dict[str, list[tuple[str, str, list[Point]]]] = {
    "images in a batch": [
        ("default", "batch", [Point(batch=n) for n in (1, 2, 4, 8, 16)]),
        ("chunk_size 1", "batch", [Point(batch=n, options=CHUNKS) for n in (1, 4, 16)]),
        (
            "gradient_checkpointing",
            "batch",
            [Point(batch=n, options=CHECKPOINTS) for n in (1, 4, 16)],
        ),
    ],
    "side of an image, pixels": [
        ("default", "side", [Point(batch=1, side=n) for n in (128, 256, 512, 1024)]),
    ],
    "transforms": [
        ("sampled", "transforms", [Point(transforms=n) for n in (1, 2, 4, 7)]),
        (
            "dual",
            "transforms",
            [Point(transforms=n, options={"schedule": "dual"}) for n in (1, 2, 4, 7)],
        ),
    ],
    "processes": [("default", "processes", [Point(processes=n) for n in (1, 2)])],
}


class Taking(Hook):
    """Takes the processor time of every step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step(self, state: RunState) -> None:
        self.ends.append(time.process_time())

    def mean(self) -> float:
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def take_steps(point: Point, folder: Path) -> dict[str, float]:
    """Seconds per image and peak memory of a few steps, of this process."""
    before = _peak()
    count = point.batch * point.processes
    images = torch.rand(
        count, 3, point.side, point.side, generator=torch.Generator().manual_seed(0)
    )
    plan = make_plan(
        equivae.zoo.load(),
        images * 2 - 1,
        list(SEVEN[: point.transforms]),
        folder,
        recipe="equivae",
        validation_images=images[:1] * 2 - 1,
        options={
            "bottleneck_steps": 0,
            "train_batch_size": point.batch,
            "max_train_steps": STEPS,
            "checkpointing_steps": 10**6,
            "validation_steps": 10**6,
            **point.options,
        },
        progress=False,
    )
    watch = Taking()
    with Session(plan) as session:
        train(plan, session, make_student(plan, session), [watch])
    return {"seconds_per_image": watch.mean() / point.batch, "mib": (_peak() - before) / MIB}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(point: Point) -> dict[str, float]:
    """A point in processes of its own, the mean of them where there are several."""
    context = multiprocessing.get_context("fork")
    told: Any = context.Queue()
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        runs = [
            context.Process(target=_child, args=(point, rank, port, Path(folder) / "out", told))
            for rank in range(point.processes)
        ]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        if any(run.exitcode for run in runs):
            raise SystemExit(f"{point} failed")
        found = [told.get() for _ in runs]
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


def _child(point: Point, rank: int, port: int, folder: Path, told: Any) -> None:
    torch.set_num_threads(1)
    if point.processes > 1:
        size = {"WORLD_SIZE": point.processes, "LOCAL_WORLD_SIZE": point.processes}
        named = {"RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= {k: str(v) for k, v in {**named, **size, "ACCELERATE_USE_CPU": "1"}.items()}
    told.put(take_steps(point, folder))


def main(
    only: Annotated[str, typer.Option("--only", help="a word of the series' name")] = "",
    keep: Annotated[bool, typer.Option("--keep/--forget", help="points so far")] = True,
    draw_only: Annotated[bool, typer.Option("--draw", help="the figure alone")] = False,
) -> None:
    torch.set_num_threads(1)
    path = record.RESULTS / "training_cost.json"
    points: list[dict[str, Any]] = []
    if keep and path.exists():
        points = json.loads(path.read_text(encoding="utf-8"))["points"]
    for axis, lines in {} if draw_only else SERIES.items():
        for name, _, wanted in lines:
            for point in wanted if only in axis else []:
                key = {"axis": axis, "line": name, **asdict(point)}
                if any(all(row[k] == v for k, v in key.items()) for row in points):
                    continue
                row = {**key, **measured(point), "command": record.command()}
                points.append({**row, "date": record.today()})
                print(row, flush=True)
                record.save("training_cost", {"vae": "embedded", "steps": STEPS, "points": points})
    draw(points, FIGURE)


def lines_of(points: list[dict[str, Any]], axis: str) -> dict[str, tuple[list[int], list[Any]]]:
    """Of every line of an axis the places and the rows, in order."""
    found = {}
    for name, of, _ in SERIES[axis]:
        rows = [row for row in points if (row["axis"], row["line"]) == (axis, name)]
        rows.sort(key=lambda row: int(row[of]))
        if rows:
            found[name] = ([int(row[of]) for row in rows], rows)
    return found


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """Time per image above, memory below, against the first point of the first line of each panel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.2, 5.6), dpi=110, facecolor="white", layout="constrained")
    grid = figure.subplots(2, len(SERIES), sharex="col", squeeze=False)
    colours = ("#0969da", "#bc4c00", "#1a7f37")
    for column, axis in enumerate(SERIES):
        lines = lines_of(points, axis)
        for row, (number, label) in enumerate(
            (("seconds_per_image", "time per image"), ("mib", "peak memory"))
        ):
            panel = grid[row, column]
            first = next((rows[0][number] for _, rows in lines.values()), 1.0)
            for colour, (name, (places, rows)) in zip(colours, lines.items(), strict=False):
                panel.plot(
                    places,
                    [one[number] / first for one in rows],
                    "o-",
                    color=colour,
                    label=name,
                    ms=4.5,
                )
            shown = sorted({place for places, _ in lines.values() for place in places})
            panel.set_xscale("log", base=2)
            panel.set_xticks(shown, [str(place) for place in shown])
            panel.minorticks_off()
            if axis != "processes" and (row or axis.startswith("side")):
                panel.set_yscale("log", base=2)
                panel.yaxis.set_major_formatter("{x:g}x")
            else:
                panel.set_ylim(0, 1.08 * panel.get_ylim()[1])
                panel.yaxis.set_major_formatter("{x:.1f}x")
            panel.grid(True, color="#eaeef2", lw=0.7)
            panel.spines[["top", "right"]].set_visible(False)
            if row:
                panel.set_xlabel(axis)
            if not column:
                panel.set_ylabel(f"{label}, against the first point", fontsize=9)
            if not row and len(lines) > 1:
                panel.legend(frameon=False, fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    typer.run(main)
