"""Whether a run has nothing left to do: trained, measured, reported, saved and uploaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equivae.files.writing import write_beside
from equivae.training.checkpoints import digest_of
from equivae.training.plan import Plan, make_plan
from equivae.training.state import RunState

__all__ = ["done_step", "is_done", "note_done"]

DONE_FILE = "done.json"
"""In the last checkpoint: what the run left in its output folder, and with which options."""


def note_done(plan: Plan, state: RunState) -> None:
    """Note, beside the last checkpoint, that the run is done."""
    folder = plan.output_dir / f"checkpoint-{state.step}"
    if folder.is_dir():
        content = json.dumps({"options": _options(plan), "files": _files(plan.output_dir)})
        write_beside(folder / DONE_FILE, lambda path: _write(path, content))


def is_done(plan: Plan) -> bool:
    """Whether a run that goes on from a checkpoint has all been done, with these options, and is still there.

    The options count, since a run may be gone on with to be longer, or to be uploaded.
    """
    if plan.checkpoint is None or plan.starts_in_folder:
        return False
    try:
        noted = json.loads((plan.checkpoint / DONE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(noted == {"options": _options(plan), "files": _files(plan.output_dir)})


def done_step(output_dir: Path, options: Mapping[str, Any], **run: Any) -> int | None:
    """The last step of the run that these arguments of `finetune` go on with, where it is done."""
    going_on = options.get("resume_from_checkpoint") is not None
    if not (going_on and any(output_dir.glob(f"checkpoint-*/{DONE_FILE}"))):
        return None
    plan = make_plan(output_dir=output_dir, options=options, progress=False, **run)
    return plan.resumed.step if plan.resumed is not None and is_done(plan) else None


def _options(plan: Plan) -> dict[str, Any]:
    options = {**plan.config.to_dict(), "max_train_steps": plan.max_steps}
    del options["resume_from_checkpoint"]
    written: dict[str, Any] = json.loads(json.dumps(options))
    return written


def _files(folder: Path) -> dict[str, str]:
    """The VAE and the report, with their digests."""
    wanted = [folder / "config.json", folder / "report.json", *folder.glob("*.safetensors")]
    return {path.name: digest_of(path) for path in sorted(wanted) if path.is_file()}


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
