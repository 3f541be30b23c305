"""Checkpoints of a run: written beside and renamed, found again, and never mixed up with another run's.

Models, optimiser, schedule and random states go through accelerate, which reads them with
`weights_only`; the averaged weights are safetensors and the run's own bookkeeping is JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file

from equivae.errors import InputError, first_line
from equivae.files.writing import (
    hide_secrets,
    partial_folder,
    remove_folder,
    write_beside,
    write_folder_beside,
)
from equivae.training.config import FinetuneConfig
from equivae.training.pace import affordable
from equivae.training.state import RunState

__all__ = [
    "check_settings",
    "damage_of",
    "digest_of",
    "find_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "read_images",
    "read_state",
    "remove_oldest",
    "save_checkpoint",
    "take_up",
]

logger = logging.getLogger(__name__)

STATE_FILE, IMAGES_FILE, EMA_FILE = "run.json", "images.json", "ema.safetensors"


def list_checkpoints(folder: Path) -> list[Path]:
    """`checkpoint-<step>` folders, oldest first: those that the run left behind, then those of its own."""
    named = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    found = [p for p in named if (p / STATE_FILE).is_file()]  # other programs use the name as well
    return sorted(found, key=lambda path: (_branch_of(path), _step_of(path)))


def find_checkpoint(folder: Path, wanted: str | None) -> Path | None:
    """The checkpoint that `--resume_from_checkpoint` means; `None` for a run that starts afresh.

    `"latest"` passes over damaged ones, with a warning that names them. Raises `InputError` if there is none
    of that name, or if it is damaged.
    """
    if wanted is None:
        return None
    known = list_checkpoints(folder)
    if wanted == "latest":
        return _latest_whole(folder, known)
    for path in (Path(wanted), folder / wanted):
        if (path / STATE_FILE).is_file():
            damage = damage_of(path)
            if damage is None:
                return path
            raise InputError(
                f"{path.name} is damaged ({damage}); resume from another one, or with 'latest'."
            )
    names = ", ".join(p.name for p in known) or "none"
    raise InputError(
        f"there is no checkpoint {wanted!r} to resume from; {folder} has {names}. Pass one of them or "
        "'latest'."
    )


def _latest_whole(folder: Path, known: list[Path]) -> Path | None:
    for path in reversed(known):
        damage = damage_of(path)
        if damage is None:
            return path
        logger.warning("%s is damaged (%s) and is passed over.", path, damage)
    if known:
        raise InputError(
            f"every checkpoint in {folder} is damaged; choose another output folder to start afresh."
        )
    return None


def damage_of(path: Path) -> str | None:
    """What is wrong with the files of a checkpoint, or `None`."""
    try:
        state = read_state(path)
    except InputError as error:
        return str(error)
    for name, expected in state.files.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if digest_of(path / name) != expected:
            return f"{name} is not what was written"
    return None


def read_state(path: Path) -> RunState:
    """What a checkpoint says of its run; `InputError` if it cannot be read."""
    try:
        return RunState(**json.loads((path / STATE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path.name} cannot be resumed from: its {STATE_FILE} is damaged or of another version "
            f"({first_line(error)})."
        ) from error


def read_images(path: Path) -> dict[str, Any] | None:
    """Which images the run of a checkpoint learns from; `None` for one that does not say."""
    file = path / IMAGES_FILE
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def check_settings(path: Path, state: RunState, settings: dict[str, Any]) -> None:
    """Raise `InputError` if a checkpoint is of another run; a longer one of the same is welcome."""
    # An older checkpoint's run had the usual value of an option that it does not know.
    usual = FinetuneConfig().to_dict()
    for name, value in json.loads(json.dumps(settings)).items():
        before = state.settings.get(name, usual.get(name))
        if before == value:
            continue
        if name == "max_train_steps" and isinstance(before, int) and value > before:
            _say_how_it_is_lengthened(path, state, settings, before)
        elif name == "processes":
            if before is not None:
                logger.warning(
                    "%s is of a run on %s processes, this one has %s: weights, optimiser, schedule and "
                    "average are exactly those of that run, but its place in the data and its draws are not.",
                    path.name,
                    before,
                    value,
                )
        elif name in _FINGERPRINTS and name not in state.settings:
            logger.warning("%s does not say %s.", path.name, _FINGERPRINTS[name][1])
        elif name in _FINGERPRINTS:
            raise InputError(
                f"{path.name} is of a run {_FINGERPRINTS[name][0]}; resume with the same ones or choose "
                "another output folder."
            )
        else:
            raise InputError(
                f"{path.name} is of a run with {name}={before!r}, this one has "
                f"{value!r}; resume with the same options or choose another output folder."
            )


# How a run on another VAE or other images is told of, and what an older checkpoint does not say.
_FINGERPRINTS = {
    "vae_fingerprint": ("of another VAE", "which VAE it was trained from"),
    "base_padding_mode": ("of a VAE that pads otherwise", "how its VAE pads"),
    "latent_ops": ("with other latent ops", "which latent ops it was given"),
    "loss_fingerprint": ("with another reconstruction loss", "which reconstruction loss it had"),
    "terms_fingerprint": ("with other networks in its terms", "which networks its terms had"),
    "images_fingerprint": ("on other images", "which images it was trained on"),
}


def _say_how_it_is_lengthened(
    path: Path, state: RunState, settings: dict[str, Any], before: int
) -> None:
    steps = settings["max_train_steps"]
    wanted, share = settings["bottleneck_steps"], settings["bottleneck_share"]
    early = affordable(wanted, share, steps, state.bottleneck_cost)
    if state.bottleneck_cost and state.bottleneck_planned != early:
        logger.warning(
            "%s began with %d steps of the layers at latent resolution alone, a run of %d steps begins with "
            "%d: the result is not that of a run planned so from its start.",
            path.name,
            state.bottleneck_planned,
            steps,
            early,
        )
    rival = (settings.get("terms") or {}).get("adversarial", {}).get("lr_scheduler", "constant")
    for scheduler in (settings["lr_scheduler"], rival):
        if scheduler in ("constant", "constant_with_warmup"):
            continue
        logger.warning(
            "%s is of a run of %d steps, this one has %d: from step %d on the learning rate follows the "
            "%r schedule over %d steps, so the result is not that of a run planned so from its start.",
            path.name,
            before,
            steps,
            state.step + 1,
            scheduler,
            steps,
        )


def take_up(folder: Path, checkpoint: Path, state: RunState) -> None:
    """Have `latest` mean the run that goes on from this checkpoint, and not what it leaves behind.

    Where the folder has later checkpoints, this one and those to come are of a new branch. Nothing is
    deleted; a later checkpoint is replaced when the run comes to its step.
    """
    known = list_checkpoints(folder)
    if not known or checkpoint.resolve().parent != folder.resolve():
        return
    if known[-1].name == checkpoint.name:
        return
    state.branch = _branch_of(known[-1]) + 1
    content = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    content["branch"] = state.branch

    def write(path: Path) -> None:
        path.write_text(json.dumps(content), encoding="utf-8")

    write_beside(checkpoint / STATE_FILE, write)


def save_checkpoint(
    accelerator: Accelerator,
    folder: Path,
    state: RunState,
    ema: EMAModel | None,
    images: Mapping[str, Any],
    *,
    limit: int | None,
) -> Path:
    """Write `checkpoint-<step>` and remove the oldest beyond the limit; called by every process.

    Later checkpoints, of a run that went on from an earlier one, are left where they are.
    """
    path = folder / f"checkpoint-{state.step}"
    if not accelerator.is_main_process:
        # Its random states go into the folder that the main process is filling.
        accelerator.wait_for_everyone()
        with _shared_weights_are_expected():
            accelerator.save_state(str(partial_folder(path)))
        accelerator.wait_for_everyone()
        return path

    def write(target: Path) -> None:
        accelerator.wait_for_everyone()
        with _shared_weights_are_expected():
            accelerator.save_state(str(target))
        accelerator.wait_for_everyone()
        if ema is not None:
            weights = {str(i): p.contiguous() for i, p in enumerate(ema.shadow_params)}
            save_file(weights, target / EMA_FILE)
        (target / IMAGES_FILE).write_text(json.dumps(images), encoding="utf-8")
        hide_secrets(target)  # which changes texts, so before their checksums
        written = sorted(p for p in target.rglob("*") if p.is_file())
        files = {p.relative_to(target).as_posix(): digest_of(p) for p in written}
        content = {**asdict(state), "files": files}
        (target / STATE_FILE).write_text(json.dumps(content), encoding="utf-8")

    write_folder_beside(path, write)
    remove_oldest(folder, state.step, limit)
    return path


@contextlib.contextmanager
def _shared_weights_are_expected() -> Iterator[None]:
    """The elements of a group share latent ops; accelerate writes each once and asks its reader to check."""

    def other(record: logging.LogRecord) -> bool:
        return "Removed shared tensor" not in record.getMessage()

    saving = logging.getLogger("accelerate.utils.other")
    saving.addFilter(other)
    try:
        yield
    finally:
        saving.removeFilter(other)


def remove_oldest(folder: Path, step: int, limit: int | None) -> None:
    """Leave at most so many checkpoints up to a step; all of them without a limit."""
    if limit is None:
        return
    earlier = [p for p in list_checkpoints(folder) if _step_of(p) <= step]
    for old in earlier[:-limit]:
        remove_folder(old)


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
        weights = load_file(path / EMA_FILE)
        with torch.no_grad():
            for i, shadow in enumerate(ema.shadow_params):
                shadow.copy_(weights[str(i)])
        ema.optimization_step = step


def _branch_of(path: Path) -> int:
    try:
        return read_state(path).branch
    except InputError:
        return 0


def _step_of(path: Path) -> int:
    return int(path.name.split("-")[1])


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
