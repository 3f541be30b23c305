"""What comes of a run: measured, reported, saved, uploaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from equivae.autoencoder import Autoencoder, copy_module
from equivae.evaluation.latent_space import LatentSpace
from equivae.evaluation.metrics import Metrics, measure
from equivae.files.pretrained import note_origin, save_vae
from equivae.files.provenance import OPERATORS
from equivae.files.writing import write_beside
from equivae.operators import operators_of, save_operators
from equivae.processes import on_main_process
from equivae.reporting.card import base_model_of, model_card
from equivae.reporting.pictures import choose_images, picture
from equivae.reporting.report import Report
from equivae.training.config import FinetuneConfig
from equivae.training.done import note_done
from equivae.training.plan import Plan
from equivae.training.recipes import recipe_text
from equivae.training.repeating import LORA, RECIPE, recipe_of
from equivae.training.session import Session
from equivae.training.settling import settled
from equivae.training.state import RunState
from equivae.training.student import Student, measure_options
from equivae.transforms import Transform

__all__ = ["FinetuneResult", "conclude"]


@dataclass
class FinetuneResult:
    """What `finetune` gives.

    Attributes:
        vae: the fine-tuned autoencoder, of the class and dtype of the one passed in, in eval mode.
        report: the numbers before and after, on images it did not train on.
        history: records of the loss: `step`, `epoch`, `loss`, `learning_rate` and the loss terms, or
            `step`, `epoch`, `validation_loss`.
        output_dir: where VAE, report, figures and checkpoints lie.
        transforms: the transforms that the VAE is equivariant under now; with `train_operator=True` the
            fitted ones carry the trained latent ops, which `output_dir/operators` holds too.
    """

    vae: nn.Module
    report: Report
    history: list[dict[str, float]]
    output_dir: Path
    transforms: list[Transform] = field(default_factory=list)


def conclude(plan: Plan, session: Session, student: Student, state: RunState) -> FinetuneResult:
    """Measure the trained VAE, write everything into the output folder, upload it if asked for."""
    student.finish(plan.original)
    after = measure(
        student.vae,
        plan.measured,
        student.transforms,
        measure_options(plan),
        label="after",
        baseline_latents=student.latents,
    )
    session.stop.check()
    space = settled(plan, student.vae)
    session.stop.check()
    report = _report(plan, session, student, state, after, space)
    session.stop.check()
    on_main_process(lambda: _write(plan, session, student, report, space))
    on_main_process(partial(note_done, plan, state))
    model = student.vae.module
    note_origin(model, plan.output_dir)
    return FinetuneResult(model, report, state.history, plan.output_dir, student.transforms)


def _report(
    plan: Plan,
    session: Session,
    student: Student,
    state: RunState,
    after: Metrics,
    space: LatentSpace,
) -> Report:
    config, measured, transforms = plan.config, plan.measured, student.transforms
    pictured = choose_images(after, 3)
    lost = [] if plan.feed.stream is None else plan.feed.stream.replaced
    untouched = Autoencoder(copy_module(plan.original).to(session.accelerator.device))
    settings: dict[str, Any] = {
        "vae": str(plan.given)
        if isinstance(plan.given, (str, Path))
        else type(plan.given).__name__,
        "images": plan.images,
        "transforms": ",".join(t.name for t in transforms),
        "recipe": plan.recipe,
        "seconds": round(state.seconds, 1),
        "device": str(session.accelerator.device),
        **config.to_dict(),
        "max_train_steps": plan.max_steps,
        "bottleneck_steps": state.bottleneck_steps,
        "training_images": len(plan.training) if plan.feed.stream is None else "a stream",
        "trained_parameters": student.trained,
        "vae_parameters": sum(p.numel() for p in student.vae.module.parameters()),
        "measured_on": "training images"
        if plan.validation is plan.training
        else "images not trained on",
        **space.settings(),
    }
    return Report(
        metrics=after,
        before=student.before,
        panels=picture(student.vae, measured, pictured, transforms, config.seed),
        panels_before=picture(untouched, measured, pictured, transforms, config.seed),
        history=state.history,
        settings=settings,
        skipped=[*plan.training.skipped, *plan.training.replaced, *measured.replaced, *lost],
    )


def _write(
    plan: Plan, session: Session, student: Student, report: Report, space: LatentSpace
) -> None:
    folder, model = plan.output_dir, student.vae.module
    session.check_folder()
    save_vae(model, folder)
    if operators_of(student.transforms):  # what it learned does not fit the plain latent op
        save_operators(student.transforms, folder / OPERATORS)
    if student.lora is not None:
        student.lora.save(folder / LORA)
    text = recipe_text(recipe_of(plan))
    write_beside(folder / RECIPE, lambda path: _write_text(path, text))
    report.save(folder, overwrite=True)
    card = model_card(
        session.repo.repo_id if session.repo else folder.resolve().name,
        model,
        base_model_of(plan.given, plan.original),
        student.transforms,
        plan.recipe,
        plan.config.to_dict(),
        FinetuneConfig().to_dict(),
        report,
        space,
    )
    write_beside(folder / "README.md", card.save)
    if session.repo is not None:
        session.repo.upload(folder)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
