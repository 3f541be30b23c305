"""The stages of a run: the layers at latent resolution by themselves, then everything that learns."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm.auto import tqdm

from equivae.autoencoder import NoBottleneckError
from equivae.autoencoder.compiling import compiled
from equivae.losses import Objective
from equivae.processes import on_main_process, process_state
from equivae.training.batches import ImageBatches
from equivae.training.best import KeepBest
from equivae.training.bottleneck import (
    BottleneckOptions,
    BottleneckResult,
    train_bottleneck,
)
from equivae.training.bucketed import BucketBatches
from equivae.training.caching import keeps_latents
from equivae.training.checkpoints import load_checkpoint, take_up
from equivae.training.config import FinetuneConfig
from equivae.training.cost import relative_cost
from equivae.training.guard import Guard, Names
from equivae.training.hooks import (
    Averaging,
    Checkpointing,
    Clock,
    EarlyStopping,
    Recording,
    Validation,
)
from equivae.training.latents import WithCached, cache_latents, cache_taught
from equivae.training.layout import channels_last, wants_channels_last
from equivae.training.length import order_of
from equivae.training.metering import Metering, Profiling
from equivae.training.optimisers import optimizer_of
from equivae.training.pace import affordable
from equivae.training.plan import Plan
from equivae.training.rematerialise import enable_gradient_checkpointing
from equivae.training.session import Session
from equivae.training.state import RunState
from equivae.training.streams import StreamBatches
from equivae.training.student import Student
from equivae.training.terms import Following, rivals_of
from equivae.training.tracking import ids_of
from equivae.training.trainer import Hook, Player, Trainer
from equivae.training.validation import pictures_of, save_best, validation_loss
from equivae.training.watching import Pictures

__all__ = ["train"]

logger = logging.getLogger(__name__)

_LOOKED_AT = 16  # latent cells
_AGREE_EVERY = 10  # steps between two looks at clock and signals, where processes have to agree


def train(plan: Plan, session: Session, student: Student, further: Sequence[Hook] = ()) -> RunState:
    """All stages of a run; the student has the trained weights afterwards, averaged if asked for.

    `further` hooks come last, in the stage that trains everything.
    """
    state = RunState(plan.settings)
    began = time.perf_counter()
    if plan.checkpoint is None:
        _train_bottleneck(plan, student, state)
    state.seconds = time.perf_counter() - began
    if plan.config.gradient_checkpointing:
        some = _few_cells(plan.training[0][None], plan, student)
        enable_gradient_checkpointing(student.vae, some.to(session.accelerator.device))
    with channels_last(student.vae.module) if wants_channels_last(plan.config) else nullcontext():
        return _train_all(plan, session, student, state, further)


def _few_cells(images: Tensor, plan: Plan, student: Student) -> Tensor:
    """A corner of images: a whole one may need the memory that gradient checkpointing is to save."""
    if images.ndim < 4:
        return images
    most = _LOOKED_AT * student.vae.factor
    size = min(plan.config.crop_size or most, most)
    return images[..., :size, :size]


def _train_bottleneck(plan: Plan, student: Student, state: RunState) -> None:
    """Train the layers at latent resolution, where there are some; the state says how they did."""
    config = plan.config
    if (
        not (config.bottleneck_steps and config.weight and student.transforms)
        or config.half != "all"
        or config.lora_rank
    ):
        return
    try:
        state.bottleneck_cost = _cost_of_bottleneck(plan, student)
        share, cost = config.bottleneck_share, state.bottleneck_cost
        steps = affordable(config.bottleneck_steps, share, plan.max_steps, cost)
        state.bottleneck_planned = steps
        if steps:
            state.bottleneck_steps = len(_bottleneck(plan, student, steps).losses)
    except NoBottleneckError as error:
        state.bottleneck_planned = 0
        logger.info("All layers learn from the first step: %s", error)


def _bottleneck(plan: Plan, student: Student, steps: int) -> BottleneckResult:
    config = plan.config
    options = BottleneckOptions(
        steps=steps,
        tolerance=config.bottleneck_tolerance,
        learning_rate=config.bottleneck_learning_rate,
        train_batch_size=2 * config.train_batch_size,
        eval_batch_size=config.eval_batch_size,
        crop_size=config.crop_size,
        weight=config.weight,
        mixed_precision=config.mixed_precision,
        seed=config.seed,
        progress=plan.progress,
    )
    return train_bottleneck(student.vae, student.transforms, plan.training, options)


def _cost_of_bottleneck(plan: Plan, student: Student) -> float:
    """Of a step at latent resolution, which has twice the images, over that of a step of all layers."""
    config = plan.config
    some = _few_cells(plan.training[0][None], plan, student)
    decodes = 1 + len(student.transforms) if config.schedule == "dual" else 1
    return 2 * relative_cost(student.vae, some, decodes) / config.gradient_accumulation_steps


def _train_all(
    plan: Plan, session: Session, student: Student, state: RunState, further: Sequence[Hook]
) -> RunState:
    config, accelerator = plan.config, session.accelerator
    batches = _batches(plan, session, student)
    objective = Objective(
        student.vae,
        student.loss(config),
        operators=student.operators,
        teacher=student.teacher,
        distillation=config.distillation,
        masking=student.masking,
        terms=student.terms,
    )
    optimizer = optimizer_of(config, student)
    prepared, optimizer = accelerator.prepare(objective, optimizer)
    state.warmup_steps = plan.warmup_steps
    if plan.checkpoint is not None and plan.resumed is not None:
        state = replace(plan.resumed, settings=plan.settings)
        on_main_process(partial(take_up, plan.output_dir, plan.checkpoint, state))
    state.trackers = ids_of(accelerator)
    scheduler = accelerator.prepare(_scheduler(config, optimizer, state, plan.max_steps))
    rivals = rivals_of(student.terms, accelerator, plan.max_steps)
    ema = None
    if config.use_ema:
        ema = EMAModel(student.learning, config.ema_decay, use_ema_warmup=True, foreach=True)
        ema.to(accelerator.device)
    if plan.checkpoint is not None:
        load_checkpoint(accelerator, plan.checkpoint, ema, state.step)
        if isinstance(batches, StreamBatches):
            batches.go_on(state.places)
    student.learn()
    player = Player(prepared, student.learning, optimizer, scheduler)
    trainer = Trainer(accelerator, [player, *rivals], max_grad_norm=config.max_grad_norm)
    hooks = [
        Following(objective, config.logging_steps),
        *_hooks(plan, session, student, batches, ema, scheduler, state, rivals),
    ]
    trace = plan.output_dir / "logs" / "trace.json" if _traces(plan) else None
    with Profiling(trace) as profiling, _compiled(plan, student):
        trainer.fit(batches, state, plan.max_steps, [*hooks, profiling, *further])
    if ema is not None:
        ema.copy_to(student.learning)
    accelerator.wait_for_everyone()
    return state


def _batches(
    plan: Plan, session: Session, student: Student
) -> ImageBatches | BucketBatches | StreamBatches:
    config, accelerator, feed = plan.config, session.accelerator, plan.feed
    if feed.stream is not None:
        if accelerator.is_main_process:
            feed.stream.say_how_it_is_shared(accelerator.num_processes)
        if keeps_latents(config, plan.training):
            logger.info(
                "the latents of a stream are not cached: the frozen encoder runs at every step; "
                "max_train_samples takes the first images into memory, whose latents are."
            )
        return StreamBatches(feed.stream, config, accelerator)
    if feed.buckets is not None:
        return BucketBatches(feed.buckets, config, accelerator)
    images = WithCached(plan.training, **_cached(plan, session, student))
    return ImageBatches(images, order_of(config, plan.training), config, accelerator)


def _compiled(plan: Plan, student: Student) -> AbstractContextManager[None]:
    if not plan.config.compile:
        return nullcontext()
    return compiled(student.vae, _few_cells(plan.training[0][None], plan, student))


def _traces(plan: Plan) -> bool:
    return plan.config.profile and process_state().is_main_process


def _hooks(
    plan: Plan,
    session: Session,
    student: Student,
    batches: ImageBatches | BucketBatches | StreamBatches,
    ema: EMAModel | None,
    scheduler: Any,
    state: RunState,
    rivals: list[Player],
) -> list[Hook]:
    config, accelerator = plan.config, session.accelerator
    stopping = EarlyStopping(config.early_stopping_patience)
    checkpointing = Checkpointing(
        accelerator,
        [*student.learning, *(p for rival in rivals for p in rival.parameters)],
        ema,
        plan.output_dir,
        session.stop,
        plan.record,
        session.check_folder,
        every=config.checkpointing_steps,
        minutes=config.checkpointing_minutes,
        max_steps=plan.max_steps,
        limit=config.checkpoints_total_limit,
        agree_every=min(config.logging_steps, _AGREE_EVERY),
        stops=stopping.stops,
        place=batches.place if isinstance(batches, StreamBatches) else None,
    )
    names = Names(batches.names_of)
    meter = Metering(accelerator.num_processes, accelerator.device, scheduler.get_last_lr)
    recording = Recording(
        accelerator,
        config.logging_steps,
        checkpointing.due,
        lambda: scheduler.get_last_lr()[0],
        plan.output_dir,
        tqdm(
            total=plan.max_steps,
            initial=state.step,
            desc="fine-tune",
            disable=not plan.progress,
        ),
        names,
        meter,
    )
    checkpointing.recording = recording
    validation = Validation(
        lambda: validation_loss(plan, session, student, ema),
        config.keep_best,
        accelerator,
        every=config.validation_steps,
        at_least=_steps_between_validations(plan, session, student),
        max_steps=plan.max_steps,
    )
    pictures = Pictures(
        accelerator.trackers if accelerator.is_main_process else [],
        lambda: pictures_of(plan, student, ema),
    )
    averaging = [] if ema is None else [Averaging(ema, student.learning)]
    best = KeepBest(config.keep_best, partial(save_best, plan, session, student, ema))
    guard = Guard(config.loss_spike_factor, names.of, plan.output_dir)
    before = [Clock(state), names, meter, guard, *averaging]
    return [*before, recording, validation, pictures, best, stopping, checkpointing]


def _steps_between_validations(plan: Plan, session: Session, student: Student) -> int:
    """So many that validating takes about a fifth of the time: an image costs a decode per transform."""
    config = plan.config
    decodes = len(plan.measured) * (1 + len(student.transforms))
    per_step = config.train_batch_size * config.gradient_accumulation_steps
    return math.ceil(decodes / (per_step * int(session.accelerator.num_processes)))


def _cached(plan: Plan, session: Session, student: Student) -> dict[str, Any]:
    """What a frozen encoder gives, where it need not be computed anew at every step."""
    config = plan.config
    if not keeps_latents(config, plan.training):
        return {}
    options: dict[str, Any] = {
        "batch_size": config.eval_batch_size,
        "limit_mb": config.latent_cache_mb,
        "dtype": torch.bfloat16 if config.mixed_precision == "bf16" else torch.float32,
        "kept": None if config.latent_cache_dir is None else Path(config.latent_cache_dir),
        "progress": plan.progress,
    }
    cached = {"latents": cache_latents(student.vae, plan.training, session.work_dir, **options)}
    if student.teacher is not None:
        cached["taught"] = cache_taught(student.teacher, plan.training, session.work_dir, **options)
    return cached


def _scheduler(config: FinetuneConfig, optimizer: Any, state: RunState, max_steps: int) -> Any:
    return get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=state.warmup_steps,
        num_training_steps=max_steps,
    )
