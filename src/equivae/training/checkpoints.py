"""Checkpoints of a run: written beside and renamed, found again, and never mixed up with another run's.

Models, optimiser, schedule and random states go through accelerate, which reads them with
`weights_only`; the averaged weights are safetensors and the run's own bookkeeping is JSON.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file

from equivae.errors import InputError, first_line
from equivae.files.writing import partial_folder, write_folder_beside
from equivae.training.state import RunState

__all__ = [
    "check_settings",
    "find_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "read_state",
    "save_checkpoint",
]


def list_checkpoints(folder: Path) -> list[Path]:
    """`checkpoint-<step>` folders, oldest first."""
    named = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    found = [p for p in named if (p / "run.json").is_file()]  # other programs use the name as well
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def find_checkpoint(folder: Path, wanted: str | None) -> Path | None:
    """The checkpoint that `--resume_from_checkpoint` means; `None` for a run that starts afresh."""
    if wanted is None:
        return None
    if wanted == "latest":
        known = list_checkpoints(folder)
        return known[-1] if known else None
    for path in (Path(wanted), folder / wanted):
        if (path / "run.json").is_file():
            return path
    names = ", ".join(p.name for p in list_checkpoints(folder)) or "none"
    raise InputError(
        f"there is no checkpoint {wanted!r} to resume from; {folder} has {names}. Pass one of them or "
        "'latest'."
    )


def save_checkpoint(
    accelerator: Accelerator, folder: Path, state: RunState, ema: EMAModel | None, limit: int | None
) -> None:
    """Write `checkpoint-<step>` and remove the oldest beyond the limit; called by every process."""
    if not accelerator.is_main_process:
        # Its random states go into the folder that the main process is filling.
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial_folder(folder / f"checkpoint-{state.step}")))
        accelerator.wait_for_everyone()
        return

    def write(target: Path) -> None:
        accelerator.wait_for_everyone()
        accelerator.save_state(str(target))
        accelerator.wait_for_everyone()
        if ema is not None:
            weights = {str(i): p.contiguous() for i, p in enumerate(ema.shadow_params)}
            save_file(weights, target / "ema.safetensors")
        (target / "run.json").write_text(json.dumps(asdict(state)), encoding="utf-8")

    write_folder_beside(folder / f"checkpoint-{state.step}", write)
    if limit is not None:
        for old in list_checkpoints(folder)[:-limit]:
            shutil.rmtree(old)


def read_state(path: Path) -> RunState:
    """What a checkpoint says of its run; `InputError` if it cannot be read."""
    try:
        return RunState(**json.loads((path / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path.name} cannot be resumed from: its run.json is damaged or of another version "
            f"({first_line(error)})."
        ) from error


def check_settings(path: Path, state: RunState, settings: dict[str, Any]) -> None:
    """Raise `InputError` if a checkpoint is of a run with other settings."""
    for name, value in json.loads(json.dumps(settings)).items():
        if state.settings.get(name) != value:
            raise InputError(
                f"{path.name} is of a run with {name}={state.settings.get(name)!r}, this one has "
                f"{value!r}; resume with the same options or choose another output folder."
            )


def load_checkpoint(accelerator: Accelerator, path: Path, ema: EMAModel | None, step: int) -> None:
    """Bring weights, optimiser, schedule and random states back to where they were at `step`."""
    try:
        accelerator.load_state(str(path))
    except RuntimeError as error:
        raise InputError(
            f"{path.name} holds the weights of another model; resume with the same one or choose "
            "another output folder."
        ) from error
    if ema is not None:
        weights = load_file(path / "ema.safetensors")
        with torch.no_grad():
            for i, shadow in enumerate(ema.shadow_params):
                shadow.copy_(weights[str(i)])
        ema.optimization_step = step
