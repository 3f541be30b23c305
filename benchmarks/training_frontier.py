"""What the plain fine-tune costs in reconstruction for the gap that it closes, setting by setting.

    python benchmarks/training_frontier.py

Every setting gets the same seconds of one thread's processor time, those of the layers at latent resolution
included, on the same photographs, and so does the control, which learns reconstruction alone. What a step
costs is measured first, and tells how many there are. Measured on images that were not trained on.

    python benchmarks/training_frontier.py --vaes taef2 --whole_steps 520

counts operations instead: every setting may cost as much as so many steps of all weights, which is the same
on every machine, however busy it is. 520 steps of 4 crops of 128 px are what 240 quiet seconds were on TAEF2.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

import equivae
import record
from equivae.evaluation.metrics import MeasureOptions, measure
from equivae.training import BottleneckOptions, train_bottleneck
from equivae.training.cost import relative_cost
from equivae.training.plan import make_plan
from equivae.training.session import Session
from equivae.training.stages import train
from equivae.training.state import RunState
from equivae.training.student import make_student
from equivae.training.trainer import Hook
from taef2 import load_taef2

FAST: dict[str, Any] = {"mixed_precision": "bf16", "channels_last": True}
FIRST: dict[str, Any] = {"bottleneck_learning_rate": 3e-3, "bottleneck_steps": 500}
ARMS: dict[str, dict[str, Any]] = {
    "all defaults": {},
    "fast": FAST,
    "fast, reconstruction alone": {**FAST, "weight": 0.0},
    "fast, weight 0.4": {**FAST, "weight": 0.4},
    "fast, rate 1e-3": {**FAST, "learning_rate": 1e-3},
    "fast, batch 3": {**FAST, "train_batch_size": 3},
    "fast, rate 2e-3": {**FAST, "learning_rate": 2e-3},
    "fast, rate 1e-3, batch 2": {**FAST, "learning_rate": 1e-3, "train_batch_size": 2},
    "fast, rate 1e-3, first 3e-3": {
        **FAST,
        "learning_rate": 1e-3,
        "bottleneck_learning_rate": 3e-3,
    },
    "fast, no bottleneck stage": {**FAST, "bottleneck_steps": 0},
    "fast, first 3e-3": {**FAST, **FIRST},
    "fast, first 3e-3, muon": {**FAST, **FIRST, "optimizer": "muon"},
    "fast, first 3e-3, muon 5e-4": {
        **FAST,
        **FIRST,
        "optimizer": "muon",
        "learning_rate": 5e-4,
    },
    "fast, averaged": {**FAST, "use_ema": True, "ema_decay": 0.98},
}
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "training-frontier.png"
STEPS, SHARE = 300, 0.4  # of the layers at latent resolution; at most this share of the seconds
LOOK = 1 / 3  # of an image's whole step: the two encodes before those steps


@dataclass
class Timed(Hook):
    """The processor seconds of each step."""

    at: list[float] = field(default_factory=list)

    def on_step(self, state: RunState) -> None:
        self.at.append(time.process_time())


@dataclass(frozen=True)
class Scene:
    """What all settings of a VAE share."""

    vae: nn.Module
    training: Tensor
    held_out: Tensor
    batch: int
    seconds: float
    whole_steps: int = 0  # instead of the seconds
    crop_size: int | None = None

    def finetune(self, steps: int, options: dict[str, Any]) -> tuple[nn.Module, list[float], float]:
        """The VAE after so many steps, when each ended, and the processor seconds in all."""
        with tempfile.TemporaryDirectory() as folder:
            plan = make_plan(
                self.vae,
                self.training,
                "rot180",
                Path(folder) / "out",
                recipe="equivae",
                validation_images=self.held_out[:1],
                options={
                    "train_batch_size": self.batch,
                    "max_train_steps": steps,
                    "checkpointing_steps": 10**6,
                    "checkpointing_minutes": 0,
                    "validation_steps": 10**6,
                    "crop_size": self.crop_size,
                    **options,
                },
                progress=False,
            )
            with Session(plan) as session:
                student, timed = make_student(plan, session), Timed()
                began = time.process_time()
                train(plan, session, student, [timed])
                spent = time.process_time() - began
                student.finish(plan.original)
                return student.vae.module, timed.at, spent

    def bottleneck(self, options: dict[str, Any]) -> tuple[int, float]:
        """How many steps at latent resolution the settings get, and their seconds, from a few of them."""
        spent = []
        for steps in (1, 11):
            began = time.process_time()
            train_bottleneck(
                equivae.autoencoder.copy_module(self.vae),
                "rot180",
                self.training,
                BottleneckOptions(
                    steps=steps,
                    train_batch_size=2 * options.get("train_batch_size", self.batch),
                    mixed_precision=options.get("mixed_precision", "no"),
                    progress=False,
                ),
            )
            spent.append(time.process_time() - began)
        each = (spent[1] - spent[0]) / 10
        steps = min(options["bottleneck_steps"], int((SHARE * self.seconds - spent[0]) / each))
        return max(0, steps), spent[0] + each * steps

    def counted(self, options: dict[str, Any]) -> tuple[int, int]:
        """How many steps at latent resolution and of all weights cost as much as the whole steps."""
        batch = options.get("train_batch_size", self.batch)
        images, first = float(self.whole_steps * self.batch), 0
        if options["bottleneck_steps"] and options.get("weight", 1.0):
            cut = slice(None, self.crop_size)
            each = relative_cost(equivae.Autoencoder(self.vae), self.training[:1, :, cut, cut])
            first = min(options["bottleneck_steps"], int(SHARE * images / (2 * batch * each)))
            looked_at = min(len(self.training), BottleneckOptions().max_images)
            images -= 2 * batch * first * each + looked_at * LOOK
        return first, int(images / batch)

    def measure(self, vae: nn.Module) -> dict[str, float]:
        images = equivae.data.load_images(self.held_out)
        quick = MeasureOptions(ceiling=False, progress=False)
        found = measure(
            equivae.Autoencoder(vae), images, equivae.transforms.resolve_transforms("rot180"), quick
        )
        return {
            "reconstruction_psnr": found.reconstruction_psnr,
            "gap_db": found.transforms["rot180"].equivariance_gap_db,
        }

    def timed(self, options: dict[str, Any]) -> tuple[int, int]:
        """How many steps at latent resolution and of all weights take as long as the seconds."""
        first, before = 0, 0.0
        if options["bottleneck_steps"] and options.get("weight", 1.0):
            first, before = self.bottleneck(options)
        _, ends, _ = self.finetune(4, {**options, "bottleneck_steps": 0})
        return first, max(10, int((self.seconds - before) / ((ends[-1] - ends[0]) / 3)))

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        options = {"bottleneck_steps": STEPS, "bottleneck_tolerance": 0.0, **options}
        options["bottleneck_share"] = 1000.0  # the seconds decide here
        if self.whole_steps:
            options["bottleneck_steps"], steps = self.counted(options)
        else:
            options["bottleneck_steps"], steps = self.timed(options)
        vae, _, spent = self.finetune(steps, options)
        row = {"options": options, "steps": steps, "seconds": round(spent, 1)}
        row["whole_steps"] = self.whole_steps
        row |= {"command": record.command(), "date": record.today()}
        return row | self.measure(vae)


def main(
    data: Annotated[Path, typer.Option("--data", help="with taef2 and photos")] = record.DATA,
    vaes: Annotated[str, typer.Option("--vaes")] = "taef2,embedded",
    arms: Annotated[str, typer.Option("--arms", help="semicolon-separated, else all")] = "",
    seconds: Annotated[float, typer.Option("--seconds", help="of each setting")] = 80,
    side: Annotated[int, typer.Option("--side", help="of the photographs")] = 128,
    images: Annotated[int, typer.Option("--images", help="to learn from")] = 150,
    batch: Annotated[int, typer.Option("--batch", help="unless a setting says it")] = 6,
    whole_steps: Annotated[int, typer.Option("--whole_steps", help="instead of seconds")] = 0,
    crop_size: Annotated[int, typer.Option("--crop_size", help="of random crops; 0: whole")] = 0,
    test: Annotated[
        str, typer.Option("--test", help="a folder of data, else photos held out")
    ] = "",
) -> None:
    torch.set_num_threads(1)
    held = 0 if test else 24
    photos = stacked(data / "photos", side, images + held)
    held_out = stacked(data / test, side, 24) if test else photos[:held]
    path = record.RESULTS / "training_frontier.json"
    content: dict[str, Any] = {"vaes": {}}
    if path.exists():
        content["vaes"] = json.loads(path.read_text(encoding="utf-8"))["vaes"]
    for name in vaes.split(","):
        vae = load_taef2(data / "taef2") if name == "taef2" else equivae.zoo.load()
        scene = Scene(vae, photos[held:], held_out, batch, seconds, whole_steps, crop_size or None)
        one = content["vaes"].setdefault(name, {"arms": {}})
        one |= {"untouched": scene.measure(vae), "seconds": seconds, "side": side, "batch": batch}
        one |= {"crop_size": crop_size, "test": test or "photos"}
        print(name, one["untouched"], flush=True)
        for arm in arms.split(";") if arms else ARMS:
            one["arms"][arm] = scene.run(ARMS[arm])
            print(
                name, arm, {k: v for k, v in one["arms"][arm].items() if k != "options"}, flush=True
            )
            record.save("training_frontier", content)
    draw(content["vaes"], FIGURE)


def stacked(folder: Path, side: int, most: int) -> Tensor:
    found = equivae.data.load_images(folder, resolution=side, max_samples=most)
    return torch.stack([found[i] for i in range(len(found))])


def draw(vaes: dict[str, Any], path: Path) -> None:
    """Reconstruction against the gap that is left, a panel for each VAE; what is asked for is shaded."""
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(7.2 * len(vaes), 4.6), dpi=130, facecolor="white", layout="constrained"
    )
    for axis, (name, one) in zip(
        figure.subplots(1, len(vaes), squeeze=False)[0], vaes.items(), strict=True
    ):
        base = one["untouched"]["reconstruction_psnr"]
        axis.axhspan(-0.3, 0.6, xmin=0, xmax=0.3 / 2.2, color="#dafbe1")
        axis.axhline(0, color="#cf222e", lw=1, ls="--")
        axis.text(2.17, 0.03, "untouched reconstruction", ha="right", fontsize=8, color="#cf222e")
        budgets = {row.get("whole_steps") for row in one["arms"].values()}
        budget = budgets.pop() if len(budgets) == 1 else ""  # else every point says its own
        worth = f", {budget} whole steps" if budget else budget
        if budget is None:
            worth = f", {one['seconds']:g} s of one thread"
        for arm, row in one["arms"].items():
            gap, change = row["gap_db"], row["reconstruction_psnr"] - base
            place = min(gap, 2.15)
            axis.plot(place, change, "o" if gap < 2.2 else ">", color="#0969da")
            shown = arm if gap < 2.2 else f"{arm} (gap {gap:.1f} dB)"
            if not worth and row.get("whole_steps"):
                shown += f", {row['whole_steps']} whole steps"
            side = "left" if place < 1.3 else "right"
            offset = (7, 0) if side == "left" else (-7, 0)
            axis.annotate(
                shown,
                (place, change),
                offset,
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize=8,
            )
        axis.set_xlim(0, 2.2)
        side = one.get("crop_size") or one["side"]
        axis.set_title(f"{name}, {side} px{worth}", fontsize=10)
        axis.set_xlabel("gap that is left, dB")
        axis.set_ylabel("reconstruction, change in dB")
        axis.grid(True, color="#eaeef2", lw=0.7)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    typer.run(main)
