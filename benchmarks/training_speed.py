"""Images per second of `equivae.finetune` against a plain PyTorch loop of the published objective.

    python benchmarks/training_speed.py

The plain loop is what one writes by hand: encode once, decode twice, float32, AdamW over everything. Each row
takes turns with it, step by step, in one process on one thread, on the same images: a hook of our loop's own
runs the other's steps between ours. Seconds are those of the processor (`time.process_time`). A ratio is that
of one turn of ours and the two turns of the plain loop around it; the table shows their median and range. The
first step of each, which makes buffers, is not counted. Before that, both loops show equal losses.

`bound` is what one decode in the place of two can save where everything learns and operations cost the same:
(E + 2 D) / (E + D), E and D counted in operations. What a row has beyond it comes from cheaper operations
(bf16, the order in memory, calls of a better size), or from an encoder that does not run.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

import equivae
import record
from equivae.autoencoder import at_once
from equivae.training.plan import make_plan
from equivae.training.session import Session
from equivae.training.stages import train
from equivae.training.state import RunState
from equivae.training.student import make_student
from equivae.training.trainer import Hook
from taef2 import load_taef2

BATCH, SIDE, SEED = 6, 128, 0
TURN = 1  # step

PUBLISHED: dict[str, Any] = {"recipe": "published-rot180"}
DEFAULT: dict[str, Any] = {"recipe": "equivae", "bottleneck_steps": 0}
CACHED: dict[str, Any] = {"recipe": "decoder"}
BF16: dict[str, Any] = {"mixed_precision": "bf16"}
LAST: dict[str, Any] = {"channels_last": True}
NOT_LAST: dict[str, Any] = {"channels_last": False}


@dataclass(frozen=True)
class Row:
    """A way to train: its options, and how large a call may be."""

    name: str
    options: dict[str, Any]
    call_bytes: int | None = None  # of the largest activation in a call
    adamw: str = "fused"  # how its steps are carried out


WHOLE = 2**50
ROWS = {
    "published": Row("published objective", PUBLISHED),
    "published-whole": Row("published objective, 12 images in a call", PUBLISHED, WHOLE),
    "default": Row("default recipe", DEFAULT),
    "default-whole": Row("default recipe, 6 images in a call", DEFAULT, WHOLE),
    "default-one": Row("default recipe, one image in a call", DEFAULT, 1),
    "default-bf16": Row("default recipe, bf16", {**DEFAULT, **BF16, **NOT_LAST}),
    "published-bf16": Row("published objective, bf16", {**PUBLISHED, **BF16, **NOT_LAST}),
    "channels-last": Row("default recipe, channels-last", {**DEFAULT, **LAST}),
    "bf16-channels-last": Row("default recipe, bf16 and channels-last", {**DEFAULT, **BF16}),
    "unfused": Row("default recipe, AdamW weight by weight", DEFAULT, adamw="for-loop"),
    "foreach": Row("default recipe, AdamW by foreach", DEFAULT, adamw="foreach"),
    "compile": Row("default recipe, compiled", {**DEFAULT, "compile": True}),
    "ema": Row("default recipe, averaged weights", {**DEFAULT, "use_ema": True}),
    "chunks": Row("default recipe, checkpointed chunks of 1", {**DEFAULT, "chunk_size": 1}),
    "decoder-encodes": Row("decoder alone, encoding at every step", {**CACHED, "crop_size": SIDE}),
    "decoder": Row("decoder alone, cached latents", CACHED),
    "decoder-bf16": Row("decoder alone, cached latents, bf16", {**CACHED, **BF16, **NOT_LAST}),
    "decoder-bf16-channels-last": Row(
        "decoder alone, cached latents, bf16 and channels-last", {**CACHED, **BF16}
    ),
}


class Plain:
    """The loop that one writes by hand for `MSE(D(E(x)), x) + MSE(D(rot180(E(x))), rot180(x))`."""

    def __init__(self, vae: nn.Module, images: Tensor, order: Callable[[int], list[int]]) -> None:
        self.vae, self.images, self.order = vae.train().requires_grad_(True), images, order
        self.optimizer = torch.optim.AdamW(vae.parameters(), lr=5e-5)
        self.steps = 0
        self.losses: list[Tensor] = []

    def encode(self, x: Tensor) -> Tensor:
        found = self.vae.encode(x)
        return found if isinstance(found, Tensor) else found.latent_dist.mode()

    def decode(self, z: Tensor) -> Tensor:
        found = self.vae.decode(z)
        return found if isinstance(found, Tensor) else found.sample

    def step(self) -> None:
        x = self.images[self.order(self.steps)]
        z = self.encode(x)
        loss = (self.decode(z) - x).square().mean()
        turned = (self.decode(z.rot90(2, (2, 3))) - x.rot90(2, (2, 3))).square().mean()
        loss = loss + turned
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.detach())
        self.steps += 1


@dataclass
class Turns(Hook):
    """Lets another loop take its turn after so many of ours, and takes the time of both."""

    plain: Plain
    turn: int
    ours: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    since: float = 0.0

    def on_batch(self, loss: Tensor, terms: dict[str, Tensor], state: RunState) -> None:
        self.losses.append(loss)

    def on_step(self, state: RunState) -> None:
        now = time.process_time()
        if state.step == 1:
            self.plain.step()
        elif (state.step - 1) % self.turn:
            return
        else:
            self.ours.append(now - self.since)
        now = time.process_time()
        for _ in range(self.turn):
            self.plain.step()
        self.since = time.process_time()
        self.others.append(self.since - now)

    def ratios(self) -> list[float]:
        """Of each of our turns: the mean of the plain loop's turns around it over ours."""
        around = zip(self.others, self.others[1:], strict=False)
        return [(a + b) / 2 / mine for (a, b), mine in zip(around, self.ours, strict=True)]


def run(vae: nn.Module, images: Tensor, row: Row, turns: int) -> Turns:
    """Our loop with the options of a row, in turns with the plain one."""
    options = dict(row.options)
    kept = at_once._CPU_BYTES
    at_once._CPU_BYTES = row.call_bytes or kept
    try:
        with tempfile.TemporaryDirectory() as folder:
            plan = make_plan(
                equivae.load_vae(vae),
                images,
                "rot180",
                Path(folder) / "out",
                recipe=options.pop("recipe"),
                validation_images=images[:1],
                options={
                    "resolution": None,
                    "train_batch_size": BATCH,
                    "max_train_steps": 1 + turns * TURN,
                    "checkpointing_steps": 10**6,
                    "validation_steps": 10**6,
                    **options,
                },
                progress=False,
            )
            with Session(plan) as session:
                student = make_student(plan, session)
                order, per_epoch = _order_of(plan)
                plain = Plain(
                    equivae.autoencoder.copy_module(vae),
                    images,
                    lambda step: order.of_batch(step // per_epoch, step % per_epoch, BATCH),
                )
                watch = Turns(plain, TURN)
                with _adamw(row.adamw):
                    train(plan, session, student, [watch])
                return watch
    finally:
        at_once._CPU_BYTES = kept


@contextmanager
def _adamw(kind: str) -> Iterator[None]:
    """Within it AdamW steps so; fused is what equivae asks for."""
    made = torch.optim.AdamW

    def make(*given: Any, fused: bool | None = None, **options: Any) -> torch.optim.AdamW:
        return made(*given, fused=kind == "fused", foreach=kind == "foreach", **options)

    torch.optim.AdamW = make  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        torch.optim.AdamW = made  # type: ignore[misc]


def bound(vae: nn.Module, images: Tensor) -> float:
    """How many times fewer operations the default recipe takes than the plain loop: E + 2 D over E + D."""
    from torch.utils.flop_counter import FlopCounterMode

    view = equivae.Autoencoder(vae)
    view.geometry  # noqa: B018 (found by calls of its own)
    counts = []
    given = images[:1]
    with equivae.autoencoder.measuring(vae):
        for call in (view.encode, view.decode):
            with FlopCounterMode(display=False) as counter:
                given = call(given)
            counts.append(counter.get_total_flops())
    encode, decode = counts
    return (encode + 2 * decode) / (encode + decode)


def loading(data: Path) -> float:
    """Images a second that a loader without workers reads, decodes, resizes and cuts, on one thread."""
    found = equivae.data.load_images(data / "photos", resolution=SIDE, max_samples=120)
    loader = torch.utils.data.DataLoader(found, BATCH)
    began = time.process_time()
    count = sum(len(batch) for batch in loader)
    return count / (time.process_time() - began)


def _order_of(plan: Any) -> tuple[Any, int]:
    from equivae.training.length import order_of

    return order_of(plan.config, plan.training), -(-len(plan.training) // BATCH)


def main(
    data: Annotated[Path, typer.Option("--data", help="with taef2 and photos")] = record.DATA,
    vaes: Annotated[str, typer.Option("--vaes")] = "taef2,embedded",
    rows: Annotated[str, typer.Option("--rows", help="comma-separated, else all")] = "",
    turns: Annotated[int, typer.Option("--turns", help="of each loop, a row")] = 4,
    keep: Annotated[bool, typer.Option("--keep/--forget", help="results so far")] = True,
) -> None:
    torch.set_num_threads(1)
    found = equivae.data.load_images(data / "photos", resolution=SIDE, max_samples=60)
    images = torch.stack([found[i] for i in range(len(found))])
    loaded = loading(data)
    path = record.RESULTS / "training_speed.json"
    content: dict[str, Any] = {"loaded_per_second": loaded, "vaes": {}}
    if keep and path.exists():
        content["vaes"] = json.loads(path.read_text(encoding="utf-8"))["vaes"]
    for name in vaes.split(","):
        vae = load_taef2(data / "taef2") if name == "taef2" else equivae.zoo.load()
        one = content["vaes"].setdefault(name, {"rows": {}})
        one["loss_difference"] = _difference(vae, images)
        one["bound"] = bound(vae, images)
        print(name, "losses of three steps agree within", one["loss_difference"], flush=True)
        for key in rows.split(",") if rows else ROWS:
            seen = run(vae, images, ROWS[key], turns)
            plain = statistics.median(seen.others) / (TURN * BATCH)
            one["rows"][key] = {
                "name": ROWS[key].name,
                "seconds_per_image": statistics.median(seen.ours) / (TURN * BATCH),
                "plain_seconds_per_image": plain,
                **{"command": record.command(), "date": record.today()},
                "ratios": [round(ratio, 3) for ratio in seen.ratios()],
                "losses": [float(loss) for loss in seen.losses],
            }
            ratios = one["rows"][key]["ratios"]
            print(
                f"{name}, {ROWS[key].name}: {statistics.median(ratios):.2f}x {ratios}", flush=True
            )
            record.save("training_speed", {"batch": BATCH, "side": SIDE, "turn": TURN, **content})


def _difference(vae: nn.Module, images: Tensor) -> float:
    """The largest relative difference of the losses of the first steps; they have to agree by rounding."""
    seen = run(vae, images, ROWS["published"], 2)
    pairs = list(zip(seen.losses, seen.plain.losses, strict=False))
    worst = max(abs(float(a) - float(b)) / float(b) for a, b in pairs)
    if len(pairs) < 3 or worst > 1e-4:
        raise SystemExit(f"the two loops do not do the same: {pairs}")
    return worst


if __name__ == "__main__":
    typer.run(main)
