"""The objective on held-out images, every transform beside the identity."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import DataLoader

from equivae.autoencoder import Autoencoder, measuring
from equivae.autoencoder.compiling import eager
from equivae.data.sources import collate
from equivae.files.pretrained import save_vae
from equivae.files.provenance import OPERATORS
from equivae.files.writing import write_folder_beside
from equivae.losses import Objective
from equivae.operators import save_operators
from equivae.processes import gathered, on_main_process, process_state
from equivae.reporting.pictures import picture
from equivae.training.best import BEST
from equivae.training.order import draws_of
from equivae.training.plan import Plan
from equivae.training.session import Session
from equivae.training.settling import settled
from equivae.training.state import RunState
from equivae.training.student import Student
from equivae.training.watching import in_a_row, latents_in_a_row

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel

__all__ = ["pictures_of", "save_best", "validation_loss"]


def validation_loss(
    plan: Plan, session: Session, student: Student, ema: EMAModel | None = None
) -> dict[str, float]:
    """`validation_loss` and its terms, means over the held-out images, shared out among the processes.

    The weights are those that would be saved, averaged where the run averages them, and the draws are the
    same every time.
    """
    config, accelerator, images = plan.config, session.accelerator, plan.measured
    loss_fn = student.loss(config)
    loss_fn.schedule = "dual"
    objective = Objective(student.vae, loss_fn, terms=student.terms)
    objective.validating = True
    starts = list(range(0, len(images), config.eval_batch_size))
    totals: dict[str, float] = {}
    with (
        process_state().split_between_processes(starts) as mine,
        _saved_weights(student, ema),
        measuring(student.vae.module),
        eager(student.vae.module),
    ):
        batches = [list(range(s, min(s + config.eval_batch_size, len(images)))) for s in mine]
        loader = DataLoader(images, batch_sampler=batches, collate_fn=collate)  # type: ignore[arg-type]
        for rows, batch in zip(batches, loader, strict=True):
            draws = draws_of(config.seed, 0, rows[0], 0)
            with accelerator.autocast():
                loss, terms = objective(batch.to(accelerator.device), generator=draws)
            named = {f"validation/{name}": value for name, value in terms.items()}
            for name, value in {"validation_loss": loss, **named}.items():
                total = float(value.double().cpu() * len(batch))
                totals[name] = totals.get(name, 0.0) + total
    told = gathered(totals)
    names = dict.fromkeys(name for part in told for name in part)
    return {name: sum(part.get(name, 0.0) for part in told) / len(images) for name in names}


def save_best(
    plan: Plan, session: Session, student: Student, ema: EMAModel | None, state: RunState
) -> None:
    """The VAE that would be saved now, in the folder of the best one, with its latent ops and scaling."""

    def write(folder: Path) -> None:
        model = student.as_saved()
        settled(plan, Autoencoder(model))
        save_vae(model, folder)
        if student.operators:
            save_operators(student.transforms, folder / OPERATORS)
        (folder / "best.json").write_text(json.dumps(state.history[-1]), encoding="utf-8")

    def save() -> None:
        session.check_folder()
        with _saved_weights(student, ema):
            write_folder_beside(plan.output_dir / BEST, write)

    on_main_process(save)


def pictures_of(plan: Plan, student: Student, ema: EMAModel | None = None) -> dict[str, np.ndarray]:
    """The first held-out image and its latents under every transform, by the weights that would be saved."""
    with _saved_weights(student, ema), eager(student.vae.module):
        seed, transforms = plan.config.seed, student.transforms
        panels = picture(student.vae, plan.measured, [(0, "")], transforms, seed)
    shown = {f"{panel.transform}/{panel.image}": in_a_row(panel) for panel in panels}
    latents = {f"latents/{p.transform}/{p.image}": latents_in_a_row(p) for p in panels}
    return shown | {name: row for name, row in latents.items() if row is not None}


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
