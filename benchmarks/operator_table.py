"""The table of latent ops against re-encoding: what `latent_operators.py --table` measures and prints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import equivae
from equivae.autoencoder import measuring
from equivae.data.sources import load_images
from equivae.operators import FitOptions, LatentOperator
from equivae.operators.decoding import decoded_psnr
from equivae.operators.options import NETWORK_SIZES, NetworkOptions
from equivae.operators.problems import gather
from equivae.operators.solve import finished, solved

__all__ = ["ROWS", "Row", "Steps", "as_text", "fit_both", "measure_row"]

_BATCH = 4


@dataclass(frozen=True)
class Row:
    """How one transform is fitted.

    Attributes:
        resolution: of the photographs, in pixels; shrinking and turning need more cells than flips do.
        crop: side of the crops that the steps learn from, in pixels; `None` for the whole photographs.
        kernel_size: of the closed form.
        magnitude: side of its kernel over `|z|`.
        batch: photographs per step; growing ones cost more to decode.
        learning_rate: of the steps.
    """

    resolution: int = 128
    crop: int | None = None
    kernel_size: int = 7
    magnitude: int = 3
    batch: int = 8
    learning_rate: float = 1e-3


_RESAMPLED = {"kernel_size": 5, "magnitude": 0}
_CAREFUL = {"learning_rate": 4e-4}  # where the closed form is near the ceiling
ROWS: dict[str, Row] = {
    "rot180": Row(),
    "hflip": Row(),
    "vflip": Row(**_CAREFUL),
    "rot90": Row(),
    "transpose": Row(**_CAREFUL),
    "scale(factor=0.5)": Row(256, **_RESAMPLED),
    "scale(factor=0.75)": Row(256, 128, **_RESAMPLED),
    "scale(factor=1.5)": Row(128, 96, **_RESAMPLED, batch=4, learning_rate=5e-4),
    "scale(factor=2)": Row(128, 96, **_RESAMPLED, batch=4, learning_rate=5e-4),
    "rotate(angle=15)": Row(256, 128, **_RESAMPLED),
    "fractional_shift(y=0.5,x=0.5)": Row(**_RESAMPLED, **_CAREFUL),
    "exposure(factor=0.6)": Row(**_CAREFUL),
    "greyscale": Row(**_CAREFUL),
    "saturation(factor=0.5)": Row(**_CAREFUL),
}


@dataclass(frozen=True)
class Steps:
    """Of the networks: their size, the steps on the decoded error and the seconds that end them."""

    size: str = "medium"
    count: int = 110
    seconds: float = 300.0


def fit_both(
    vae: nn.Module, name: str, photos: Tensor, steps: Steps, row: Row
) -> tuple[dict[str, equivae.FittedTransform], dict[str, float]]:
    """A closed form and a network that starts there, from the same encodes; and the seconds of each.

    Seconds are processor seconds; those of the network are of its steps alone.
    """
    view, dataset = equivae.Autoencoder(vae), load_images(photos)
    transform = view.place(equivae.get_transform(name))
    width, layers = NETWORK_SIZES[steps.size]
    network = NetworkOptions(
        steps.count,
        row.learning_rate,
        row.batch,
        width,
        layers=layers,
        max_seconds=steps.seconds,
        crop=row.crop,
    )
    trained = FitOptions(
        row.kernel_size,
        "network",
        mixed_precision="bf16",
        network=network,
        progress=False,
        objective="decoded",
        magnitude=row.magnitude,
        inverse=False,
    )
    linear = replace(trained, method="linear", objective="latent", network=NetworkOptions())
    training = dataset.split(trained.validation_split, trained.seed)[0]

    def closed_form() -> Any:
        problem = gather(view, [transform], dataset, trained)[0][transform.name]
        chosen = solved(problem, view, linear)
        return problem, chosen, finished(problem, chosen, view, training, linear).operator

    (problem, chosen, fitted), closed = _busy(closed_form)
    better, stepped = _busy(lambda: finished(problem, chosen, view, training, trained).operator)
    made: dict[str, LatentOperator] = {"fitted": fitted, "network": better}
    ops = {label: equivae.FittedTransform(transform, one) for label, one in made.items()}
    return ops, {"fitted": closed, "network": stepped}


def measure_row(
    vae: nn.Module,
    photos: Tensor,
    test: Tensor,
    name: str,
    steps: Steps,
    row: Row,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Decoded PSNR in dB of everything that can stand for a transform, with processor seconds.

    Args:
        vae: the autoencoder.
        photos: `(N, 3, H, W)`, to fit on.
        test: the same, to measure on.
        name: of the transform.
        steps: of the network.
        row: how the transform is fitted.
        kept: a folder for the latent ops themselves, `fitted` and `network`.
    """
    view = equivae.Autoencoder(vae)
    transform = view.place(equivae.get_transform(name))
    ops, seconds = fit_both(vae, name, photos, steps, row)
    for label, op in ops.items():
        if kept is not None:
            op.named(label).save(kept / label)
    with measuring(vae):
        latents = torch.cat([view.encode(x) for x in test.split(_BATCH)])
        seen = torch.cat([view.decode(z) for z in latents.split(_BATCH)]).clamp(-1, 1)

    def score(found: Callable[[int, int], Tensor]) -> float:
        batches = (
            (found(i, i + _BATCH), transform.pixel(test[i : i + _BATCH]), transform.mask(test[:1]))
            for i in range(0, len(test), _BATCH)
        )
        return round(decoded_psnr(view, batches), 2)

    def moved(op: equivae.Transform) -> float:
        return score(lambda i, j: op.latent(latents[i:j]))

    found: dict[str, Any] = {
        "transform": name,
        "fit_images": len(photos),
        "test_images": len(test),
        "row": vars(row),
        "steps": vars(steps),
        "kernel": list(ops["fitted"].operator.kernel),
        "plain": moved(transform),
        **{label: moved(op) for label, op in ops.items()},
        "reencoded": score(lambda i, j: view.encode(transform.pixel(seen[i:j]))),
        "ceiling": score(lambda i, j: view.encode(transform.pixel(test[i:j]))),
        **{f"{label}_seconds": round(value, 1) for label, value in seconds.items()},
    }
    for label, op in ops.items():
        found[f"{label}_ms"] = _milliseconds(lambda op=op: op.latent(latents[:1]))
    found["reencode_ms"] = _milliseconds(
        lambda: view.encode(transform.pixel(view.decode(latents[:1])))
    )
    return found


def _busy(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    made = call()
    return made, time.process_time() - began


def _milliseconds(call: Callable[[], Tensor]) -> float:
    """Processor time of one image, the least of three."""
    with torch.no_grad():
        call()
        return round(min(_busy(call)[1] for _ in range(3)) * 1e3, 1)


def as_text(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The rows of the table as cells, the head first."""
    head = ["transform", "plain", "fitted", "network", "re-encoded", "ceiling"]
    lines = [[*head, "seconds to fit", "ms to apply"]]
    for row in rows:
        numbers = [f"{row[key]:.2f}" for key in ("plain", "fitted", "network")]
        best = max(row["fitted"], row["network"])
        numbers = [
            f"**{one}**" if i and float(one) == best and best > row["reencoded"] else one
            for i, one in enumerate(numbers)
        ]
        lines.append(
            [
                f"{row['vae']}, {row['transform']}",
                *numbers,
                *(f"{row[key]:.2f}" for key in ("reencoded", "ceiling")),
                f"{row['fitted_seconds']:.0f}, {row['steps']['count']} steps {row['network_seconds']:.0f}",
                f"{row['fitted_ms']:.1f}, {row['network_ms']:.1f}, re-encoding {row['reencode_ms']:.0f}",
            ]
        )
    return lines
