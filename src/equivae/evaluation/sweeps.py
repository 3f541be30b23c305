"""Sweeps: the error of a transform against its parameter, on a few images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from accelerate.utils import gather_object
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.evaluation.quality import mean_inside
from equivae.evaluation.results import Sweep
from equivae.evaluation.roundtrip import fix_draws, reconstruct, travel
from equivae.processes import process_state
from equivae.transforms import Transform, get_transform
from equivae.units import psnr

__all__ = [
    "SWEEPS",
    "Range",
    "asked_for",
    "default_sweep_samples",
    "measure_sweeps",
    "sweep_images",
]


@dataclass(frozen=True)
class Range:
    """A transform, one of its parameters, the values it takes, and the transforms whose sweep it is."""

    transform: str
    parameter: str
    values: tuple[float, ...]
    of: frozenset[str]


SWEEPS = (
    Range(
        "rotate",
        "angle",
        tuple(float(angle) for angle in range(0, 181, 15)),
        frozenset(
            {
                "rotate",
                "random_rotate",
                "rot90",
                "rot180",
                "rot270",
                "random_rot90",
                "signed_rot180",
            }
            | {"affine", "random_affine", "haku_affine", "hakulatent", "eqvae"}
        ),
    ),
    Range(
        "scale",
        "factor",
        (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5),
        frozenset({"scale", "random_scale", "zoom", "random_zoom", "scale_equivariance", "eqvae"}),
    ),
)


def asked_for(transforms: Iterable[Transform]) -> list[Range]:
    """The sweeps of these transforms, also of those that they are made of."""
    names = {word for t in transforms for word in re.findall(r"\w+", getattr(t, "base", t).name)}
    return [one for one in SWEEPS if one.of & names]


def sweep_images(count: int, most: int) -> list[int]:
    """Which of so many images a sweep takes: evenly spaced."""
    most = min(most, count)
    return [i * count // most for i in range(most)]


def default_sweep_samples(count: int) -> int:
    """How many images are swept unless it is said: one in six, at most four.

    Every one costs a decode for every value of the sweeps that are `asked_for`, 22 for both; so the sweeps
    of a small set cost no more than a few times what the set itself does.
    """
    return min(4, count // 6)


def measure_sweeps(
    vae: Autoencoder,
    batches: Sequence[Tensor],
    ranges: Sequence[Range] = SWEEPS,
    *,
    label: str = "sweeps",
    progress: bool = False,
) -> dict[str, Sweep]:
    """Round-trip and reconstruction PSNR over ranges, the values shared out among the processes.

    Args:
        vae: within `measuring`.
        batches: images `(B, C, H, W)` in [-1, 1].
        ranges: what to sweep.
        label: of the progress bar.
        progress: show it.
    """
    from tqdm.auto import tqdm

    state = process_state()
    passed = [reconstruct(vae, batch.to(vae.device, vae.dtype)) for batch in batches]
    images = sum(len(batch) for batch in batches)
    points = [(i, j) for i, one in enumerate(ranges) for j in range(len(one.values))]
    found: list[tuple[int, int, float, float]] = []
    with state.split_between_processes(points) as mine:
        quiet = not (progress and state.is_main_process)
        for i, j in tqdm(mine, desc=label, disable=quiet, leave=False):
            one = ranges[i]
            moved = get_transform(one.transform, **{one.parameter: one.values[j]})
            round_trip = reconstruction = 0.0
            for batch in passed:
                trip = travel(vae, batch, fix_draws(vae, moved, batch, 0)[0], moved.name)
                error = mean_inside((trip.seen - trip.target).square(), trip.mask)
                round_trip += float(error.sum())
                reconstruction += float(trip.reconstruction_mse.sum())
            found.append((i, j, psnr(round_trip / images), psnr(reconstruction / images)))
    rows = sorted(gather_object(found))
    return {
        one.transform: Sweep(
            one.transform,
            one.parameter,
            list(one.values),
            [row[2] for row in rows if row[0] == i],
            [row[3] for row in rows if row[0] == i],
            images,
        )
        for i, one in enumerate(ranges)
    }
