"""The trackers of a run: begun under its names, and gone on with where a run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from equivae.errors import InputError
from equivae.options import quoted
from equivae.training.config import FinetuneConfig
from equivae.training.options.run import trackers_of

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["check_trackers", "ids_of", "start_trackers"]

# What the trackers call the name of a run; the others have none.
_NAME = {
    "wandb": "name",
    "trackio": "name",
    "mlflow": "run_name",
    "swanlab": "experiment_name",
    "clearml": "task_name",
}


def check_trackers(config: FinetuneConfig) -> None:
    """`InputError` for a name that no tracker of the run would take."""
    trackers = trackers_of(config.report_to)
    if config.tracker_run_name is not None and not {"all", *_NAME} & set(trackers):
        there = f"report_to={quoted(config.report_to)}" if config.report_to else "no report_to"
        raise InputError(
            f"tracker_run_name does nothing with {there}; it needs one of {', '.join(_NAME)} there."
        )


def start_trackers(
    accelerator: Accelerator, config: FinetuneConfig, ids: Mapping[str, str]
) -> None:
    """Begin the run in every tracker, or go on with the one of that id."""
    plain = {k: v for k, v in config.to_dict().items() if isinstance(v, (int, float, str))}
    init: dict[str, dict[str, Any]] = {}
    if config.tracker_run_name is not None:
        init = {tracker: {word: config.tracker_run_name} for tracker, word in _NAME.items()}
    if "wandb" in ids:
        init["wandb"] = {**init.get("wandb", {}), "id": ids["wandb"], "resume": "allow"}
    if "mlflow" in ids:
        init["mlflow"] = {**init.get("mlflow", {}), "run_id": ids["mlflow"]}
    accelerator.init_trackers(config.tracker_project_name, config=plain, init_kwargs=init)


def ids_of(accelerator: Accelerator) -> dict[str, str]:
    """What to go on with a run by, on the main process, of the trackers that can."""
    if not accelerator.is_main_process:
        return {}
    trackers: list[Any] = accelerator.trackers  # somebody's own may have no run to ask
    runs = {one.name: getattr(one, "tracker", None) for one in trackers}
    found = {
        "wandb": getattr(runs.get("wandb"), "id", None),
        "mlflow": getattr(getattr(runs.get("mlflow"), "info", None), "run_id", None),
    }
    return {name: str(one) for name, one in found.items() if one is not None}
