"""How a fine-tune goes about it: measuring, keeping and showing."""

from __future__ import annotations

from dataclasses import dataclass

from equivae.errors import InputError, did_you_mean
from equivae.files.writing import check_name
from equivae.options import BATCH, SEED, Options, above, at_least, check_path, option, quoted

__all__ = ["RunOptions", "trackers_of"]

_PACKAGES = {"comet_ml": "comet-ml"}  # named otherwise than the tracker


def _check_trackers(name: str, value: str) -> None:
    for one in trackers_of(value):
        _check_tracker(name, one)


def _check_project(name: str, value: str) -> None:
    check_name(name, value)  # tensorboard and others make a folder of it


def trackers_of(report_to: str | None) -> list[str]:
    """The trackers that are named, with commas between them."""
    return [] if report_to is None else [one.strip() for one in report_to.split(",")]


def _check_tracker(name: str, value: str) -> None:
    from accelerate.tracking import get_available_trackers
    from accelerate.utils import LoggerType

    known, there = [kind.value for kind in LoggerType], [t.value for t in get_available_trackers()]
    if value not in known:
        raise InputError(f"{name}={quoted(value)} is unknown.{did_you_mean(value[:60], known)}")
    if value == "all" and not there:
        raise InputError(
            f"{name}='all' finds no tracker; install one, such as `pip install tensorboard`."
        )
    if value not in ("all", *there):
        raise InputError(
            f"{name}={value!r} needs a package that is not here; "
            f"`pip install {_PACKAGES.get(value, value)}`."
        )


@dataclass(frozen=True)
class RunOptions(Options):
    """Validation, checkpoints, logs, caches and the seed."""

    eval_batch_size: int = option(4, "Images per call in evaluation.", range=BATCH, free=True)
    validation_steps: int | None = option(
        None, "Validate every N steps. By default after every epoch.", range=at_least(1), free=True
    )
    early_stopping_patience: int | None = option(
        None,
        "End the run after N validations without a lower loss.",
        range=at_least(1),
        free=True,
    )
    keep_best: str | None = option(
        None,
        "Keep the VAE of the best validation in output_dir/best, by validation_loss or one of its terms, "
        "such as validation/reconstruction.",
        free=True,
    )
    loss_spike_factor: float | None = option(
        None,
        "Leave out a step whose loss is more than N times the usual one; costs a wait for the device at "
        "every step.",
        range=above(1),
    )
    profile: bool = option(
        False,
        "Write a torch profiler trace of the third to fifth step to output_dir/logs/trace.json.",
        free=True,
    )
    sweep_samples: int = option(
        0,
        "Held-out images on which the report sweeps angles and scales; takes time.",
        range=at_least(0),
        free=True,
    )
    checkpointing_steps: int = option(
        500, "Save the state of the run every N steps.", range=at_least(1), free=True
    )
    checkpointing_minutes: float | None = option(
        10.0,
        "Save the state at least every N minutes; 0 saves by steps alone.",
        range=at_least(0),
        free=True,
    )
    max_train_minutes: float | None = option(
        None,
        "Save the state and end after so many minutes, with exit code 142; resume_from_checkpoint goes on.",
        range=above(0),
        free=True,
    )
    checkpoints_total_limit: int | None = option(
        2, "Keep at most N checkpoints, the newest.", range=at_least(1), free=True
    )
    resume_from_checkpoint: str | None = option(
        None, "latest, or a checkpoint's folder.", check=check_path, free=True
    )
    latent_cache_mb: int = option(
        512, "Cached latents above this size lie on disk.", range=at_least(0), free=True
    )
    latent_cache_dir: str | None = option(
        None,
        "Keep the latents of an encoder that rests in this folder, for later runs with the same images, "
        "preparation and encoder.",
        check=check_path,
        free=True,
    )
    report_to: str | None = option(
        None,
        "Trackers, comma-separated: tensorboard, wandb, trackio, comet_ml, aim, mlflow, clearml, dvclive or "
        "swanlab; or all, which are those installed.",
        check=_check_trackers,
        free=True,
    )
    tracker_project_name: str = option(
        "equivae", "The project in the trackers.", check=_check_project, free=True
    )
    tracker_run_name: str | None = option(
        None,
        "The name of the run in wandb, mlflow, trackio, swanlab and clearml; by default theirs.",
        free=True,
    )
    logging_steps: int = option(10, "Record the loss every N steps.", range=at_least(1), free=True)
    seed: int = option(0, "Seed of the split, the order and every draw.", range=SEED)
    update_scaling_factor: bool = option(
        True,
        "Write the measured scaling and shift factor to the config if the latents changed.",
        free=True,
    )
