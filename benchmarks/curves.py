"""Round trip and reconstruction against seconds, for any objective: what the benchmarks compare with.

Every arm trains in one process on one thread, on random crops of the same photographs drawn in the same
order, and is measured on the same test images. Seconds are the processor's own (`time.process_time`), so that
another program on the machine does not lengthen them; measuring is not counted.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import equivae
from equivae.evaluation.metrics import measure, psnr

__all__ = ["Arm", "Point", "Setting", "round_trip", "run", "time_to"]

Objective = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Point:
    """Where an arm stands: PSNR in dB over the test images."""

    seconds: float
    steps: int
    images_seen: int
    reconstruction_psnr: float
    round_trip_psnr: float


@dataclass(frozen=True)
class Setting:
    """What all arms of a comparison share."""

    photos: Tensor
    test: Tensor
    crop_size: int = 128
    mixed_precision: str = "bf16"
    points: int = 7
    seed: int = 0


@dataclass
class Arm:
    """One way to train.

    Attributes:
        name: of the row in the table.
        vae: trained in place.
        transform: what its round trip is measured under.
        objective: the loss of a batch of images `(B, C, H, W)` in [-1, 1].
        parameters: what learns; groups with rates of their own where given as dicts.
        learning_rate, batch_size, betas, weight_decay: of AdamW.
        cosine: fall to zero over the budget after a warm-up of 20 steps, instead of staying constant.
        ema_decay: measure averaged weights; 0 measures the weights themselves.
        spent: seconds before training began, as those of a fit.
    """

    name: str
    vae: nn.Module
    transform: equivae.Transform
    objective: Objective
    parameters: Sequence[Any]
    learning_rate: float
    batch_size: int = 4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    cosine: bool = True
    clip: float = 1.0
    ema_decay: float = 0.0
    spent: float = 0.0
    curve: list[Point] = field(default_factory=list)


def round_trip(vae: nn.Module, test: Tensor, transform: equivae.Transform) -> tuple[float, float]:
    """Reconstruction and round-trip PSNR in dB over images."""
    view, images = equivae.Autoencoder(vae), equivae.data.load_images(test)
    metrics = measure(view, images, [transform], panels=0, progress=False)[0]
    squared = metrics.per_image[f"round_trip_mse/{transform.name}"]
    return metrics.reconstruction_psnr, psnr(math.fsum(squared) / len(squared))


def run(arm: Arm, setting: Setting, budget: float) -> list[Point]:
    """Train for so many processor seconds; measure at the start and at ever doubled times up to the end."""
    groups = [g if isinstance(g, dict) else {"params": [g]} for g in arm.parameters]
    learned = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.AdamW(
        groups, arm.learning_rate, betas=arm.betas, weight_decay=arm.weight_decay, fused=True
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    average = [p.detach().clone() for p in learned] if arm.ema_decay else []
    generator = torch.Generator().manual_seed(setting.seed)
    due = [budget / 2**i for i in reversed(range(setting.points - 1))]
    trained, step = 0.0, 0
    _measure(arm, setting, learned, average, trained, step)
    while due:
        began = time.process_time()
        share = min(1.0, trained / budget)
        scale = min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * share))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (scale if arm.cosine else 1.0)
        x = _batch(setting, arm.batch_size, generator)
        lowered: Any = nullcontext()
        if setting.mixed_precision == "bf16":
            lowered = torch.autocast(x.device.type, torch.bfloat16)
        with lowered:
            loss = arm.objective(x, generator)
        optimizer.zero_grad()
        loss.backward()
        if arm.clip:
            torch.nn.utils.clip_grad_norm_(learned, arm.clip)
        optimizer.step()
        step += 1
        if average:
            decay = min(arm.ema_decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, [p.detach() for p in learned], 1 - decay)
        trained += time.process_time() - began
        while due and trained >= due[0]:
            due.pop(0)
            _measure(arm, setting, learned, average, trained, step)
    if average:
        _swap(learned, average)
    return arm.curve


def time_to(curve: Sequence[Point], level: float) -> float | None:
    """Seconds to a round trip of so many dB, between two points by interpolation in log time; or never."""
    for earlier, later in zip([curve[0], *curve], curve, strict=False):
        if later.round_trip_psnr < level:
            continue
        rise = later.round_trip_psnr - earlier.round_trip_psnr
        if rise <= 0 or earlier.seconds <= 0:
            return later.seconds
        share = (level - earlier.round_trip_psnr) / rise
        return float(earlier.seconds * (later.seconds / earlier.seconds) ** share)
    return None


def fresh(vae: nn.Module) -> nn.Module:
    """A copy to train, in training mode."""
    return copy.deepcopy(vae).train()


def _batch(setting: Setting, size: int, generator: torch.Generator) -> Tensor:
    photos, side = setting.photos, setting.crop_size
    rows = torch.randint(len(photos), (size,), generator=generator)
    top, left = (
        int(torch.randint(length - side + 1, (), generator=generator))
        for length in photos.shape[-2:]
    )
    crops = photos[rows, :, top : top + side, left : left + side]
    return crops.contiguous(memory_format=torch.channels_last)


def _measure(
    arm: Arm,
    setting: Setting,
    learned: list[Tensor],
    average: list[Tensor],
    trained: float,
    step: int,
) -> None:
    if average:
        _swap(learned, average)
    found = round_trip(arm.vae, setting.test, arm.transform)
    if average:
        _swap(learned, average)
    point = Point(round(arm.spent + trained, 2), step, step * arm.batch_size, *found)
    arm.curve.append(point)
    print(
        f"{arm.name}: {point.seconds:.0f} s, {step} steps, reconstruction {found[0]:.2f}, "
        f"round trip {found[1]:.2f} dB",
        flush=True,
    )


@torch.no_grad()
def _swap(learned: list[Tensor], average: list[Tensor]) -> None:
    for weight, mean in zip(learned, average, strict=True):
        kept = weight.detach().clone()
        weight.copy_(mean)
        mean.copy_(kept)
