"""The objective on held-out images, every transform beside the identity."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader

from equivae.autoencoder import measuring
from equivae.data.sources import collate
from equivae.losses import Objective
from equivae.processes import gathered, process_state
from equivae.reporting.pictures import picture
from equivae.training.order import draws_of
from equivae.training.plan import Plan
from equivae.training.session import Session
from equivae.training.student import Student
from equivae.training.watching import in_a_row

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel

__all__ = ["pictures_of", "validation_loss"]


def validation_loss(
    plan: Plan, session: Session, student: Student, ema: EMAModel | None = None
) -> float:
    """The mean over the held-out images, shared out among the processes.

    The weights are those that would be saved, averaged where the run averages them, and the draws are the
    same every time.
    """
    config, accelerator, images = plan.config, session.accelerator, plan.measured
    loss_fn = student.loss(config)
    loss_fn.schedule = "dual"
    objective = Objective(student.vae, loss_fn, terms=student.terms)
    objective.validating = True
    starts = list(range(0, len(images), config.eval_batch_size))
    total = torch.zeros((), dtype=torch.float64)
    with (
        process_state().split_between_processes(starts) as mine,
        _saved_weights(student, ema),
        measuring(student.vae.module),
    ):
        batches = [list(range(s, min(s + config.eval_batch_size, len(images)))) for s in mine]
        loader = DataLoader(images, batch_sampler=batches, collate_fn=collate)  # type: ignore[arg-type]
        for rows, batch in zip(batches, loader, strict=True):
            draws = draws_of(config.seed, 0, rows[0], 0)
            with accelerator.autocast():
                loss, _ = objective(batch.to(accelerator.device), generator=draws)
            total += loss.double().cpu() * len(batch)
    return float(sum(gathered(float(total)))) / len(images)


def pictures_of(plan: Plan, student: Student, ema: EMAModel | None = None) -> dict[str, np.ndarray]:
    """The first held-out image under every transform, by what the weights that would be saved make of it."""
    with _saved_weights(student, ema):
        seed, transforms = plan.config.seed, student.transforms
        panels = picture(student.vae, plan.measured, [(0, "")], transforms, seed)
    return {f"{panel.transform}/{panel.image}": in_a_row(panel) for panel in panels}


@contextmanager
def _saved_weights(student: Student, ema: EMAModel | None) -> Iterator[None]:
    if ema is None:
        yield
        return
    ema.store(student.learning)
    ema.copy_to(student.learning)
    try:
        yield
    finally:
        ema.restore(student.learning)
