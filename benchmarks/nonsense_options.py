"""Nonsense values over every option of every command: what is refused, what is taken, what breaks.

    python benchmarks/nonsense_options.py

Every value is given to every option in turn, through `equivae.cli.main` as a user meets it, in this process
and without a network. Where the options are taken, the command is stopped where its work would begin: before
an accelerator is made, before anything is measured or fitted, before a file is exported.

A value is *refused* when the command exits with 2, says one sentence and has written nothing. It is *taken,
and may be meant* when `MEANT` says so, a table that knows nothing of the ranges in the code. Everything else
is a fault, and listed.
"""

from __future__ import annotations

import collections
import contextlib
import io
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import numpy as np
import typer
import typer.main
from PIL import Image

import record

NUMBERS = ["inf", "-inf", "nan", "1e309", "-1", "-0.5", "0", "0.5", "1.5", "1e-4", "4294967296"]
NUMBERS += ["99999999999999999999", "9" * 5000, "0x10", "[1]"]
TEXTS = [
    "",
    " ",
    "\t",
    "abc",
    "None",
    "True",
    "a\nb",
    "\x1b[31mred",
    "[bold]",
    "%s {0}",
    "'",
    "; ls",
]
TEXTS += [
    "../../x",
    "x" * 300,
    "x" * 5000,
    "🙂",
    "\udcff",
    "null\0byte",
    "--seed",
    "hf_" + "x1" * 15,
]
PATHS = ["FILE", "FILE/sub", "FULL", "/proc/1/nope/x", "/dev/null/x", "."]
VALUES = [*NUMBERS, *TEXTS, *PATHS]

_NOT_MEANT = {"", " ", "\t", "a\nb", "\x1b[31mred", "x" * 5000, "null\0byte", "\udcff"}
_PRINTABLE = {value for value in VALUES if value not in _NOT_MEANT}
_REAL = {"0.5", "1.5", "1e-4", "4294967296", "99999999999999999999"}

_OUTSIDE = ["FILE/sub", "/proc/1/nope/x", "/dev/null/x", "."]
_OF_NONE = ["bottleneck_steps", "lr_warmup_steps", "sweep_samples", "latent_cache_mb", "seed"]
_OF_REAL = [
    "weight",
    "reconstruction_weight",
    "encoder_weight",
    "adam_weight_decay",
    "max_grad_norm",
]
_OF_RATE = ["bottleneck_learning_rate", "operator_learning_rate", "learning_rate", "adam_epsilon"]
_OF_SHARE = [
    "distillation",
    "probability",
    "ema_decay",
    "adam_beta1",
    "adam_beta2",
    "validation_split",
]
# What lies on the disk or on the hub decides.
_OF_OTHERS = ["image_column", "split", "subfolder", "revision", "variant"]
_PLAIN = {
    "inf",
    "nan",
    "abc",
    "None",
    "True",
    "0",
    "0.5",
    "1.5",
    "1e309",
    "1e-4",
    "0x10",
    "FILE",
    "FULL",
}
_FILE_NAMES = _PRINTABLE - {"-inf", "-1", "-0.5", "../../x", "x" * 300, "--seed", *_OUTSIDE}
_PLAIN |= {"4294967296", "99999999999999999999", "hf_" + "x1" * 15}

# Whole numbers are not in it: none of these is a size, a batch or a count that anyone runs.
MEANT: dict[str, set[str]] = {
    **{name: {"0"} for name in [*_OF_NONE, "dataloader_num_workers"]},
    **{name: {"0", *_REAL} for name in [*_OF_REAL, "ridge"]},
    **dict.fromkeys(_OF_RATE, _REAL),
    **{name: {"0", "0.5", "1e-4"} for name in _OF_SHARE},
    "scaling_factor": _REAL,
    "fit validation_split": {"0.5", "1e-4"},
    "shift_factor": {"0", "-1", "-0.5", *_REAL},
    "check": {"0"},
    "symmetrize margin": {"0"},  # no cells around the domain
    "cache_dir": {"."},
    "checkpointing_minutes": {"0", "0.5", "1.5", "1e-4"},
    **dict.fromkeys(_OF_OTHERS, _PRINTABLE),
    # a name of a file, without what leads out of its folder
    **dict.fromkeys(("name", "tracker_project_name"), _FILE_NAMES),
    "tracker_run_name": _PRINTABLE,
    "license": _PLAIN,
    "hub_model_id": _PLAIN,
    "hub_token": {"4294967296", "99999999999999999999", "../../x", "FILE/sub", "/dev/null/x"}
    | {"/proc/1/nope/x", "x" * 300, "hf_" + "x1" * 15},
    "output_dir": _PRINTABLE - {"x" * 300, "9" * 5000, *PATHS},  # to be made
    **{
        name: {"."}
        for name in ("data_dir", "train_data_dir", "validation_data_dir", "dataset_name")
    },
}

BASES: dict[str, list[str]] = {
    "demo": ["--output_dir", "OUT"],
    "finetune": ["--pretrained_model_name_or_path", "embedded", "--output_dir", "OUT"],
    "evaluate": ["--pretrained_model_name_or_path", "embedded", "--output_dir", "OUT"],
    "compare": ["embedded", "embedded", "--output_dir", "OUT"],
    "fit": ["--pretrained_model_name_or_path", "embedded", "--output_dir", "OUT"],
    "fit-group": ["--pretrained_model_name_or_path", "embedded", "--output_dir", "OUT"],
    "symmetrize": ["--pretrained_model_name_or_path", "embedded", "--output_dir", "OUT"],
    "playground": ["--output_dir", "OUT"],
    "fit-map": [
        *("--pretrained_model_name_or_path", "embedded", "--output_dir", "OUT"),
        *("--target_model_name_or_path", "embedded"),
    ],
    "fit-preview": ["--pretrained_model_name_or_path", "embedded", "--output_dir", "OUT"],
    "flip-cache": ["--cache_dir", "cache", "--latent_op", "hflip", "--unscaled", "--dry_run"],
    "export": ["--pretrained_model_name_or_path", "embedded", "--output_file", "OUT.safetensors"],
}
IMAGES = {"finetune": "train_data_dir", "fit": "train_data_dir", "evaluate": "data_dir"}
IMAGES["compare"] = "data_dir"
IMAGES |= dict.fromkeys(("fit-group", "symmetrize", "fit-map", "fit-preview"), "train_data_dir")
NEEDS = {
    "hub_model_id": ["--push_to_hub"],
    "image_dir": ["--check", "1", "--pretrained_model_name_or_path", "embedded"],
    "check": ["--pretrained_model_name_or_path", "embedded"],
    "operator_learning_rate": ["--train", "decoder", "--fit_operator", "--train_operator"],
    "distillation": ["--train", "decoder"],
}


class WorkBegan(BaseException):
    """Raised where a command would begin to work."""


@dataclass(frozen=True)
class Trial:
    """A value that was given to an option, and what came of it: `outcome` is one of `OUTCOMES`."""

    command: str
    option: str
    value: str
    outcome: str
    said: str


OUTCOMES = [
    "refused",
    "taken, may be meant",
    "taken, cannot be meant",
    "traceback",
    "not one sentence",
]
OUTCOMES += ["refused, but something was written"]


def cases() -> list[tuple[str, str, str]]:
    """`(command, option, value)` for every option that takes a value, as the program itself lists them."""
    from equivae.cli import app

    group: Any = typer.main.get_command(app)
    return [
        (name, one.name, value)
        for name, command in group.commands.items()
        if name in BASES
        for one in command.params
        if not getattr(one, "is_flag", False)
        and one.opts[0].startswith("--")
        and one.name != "help"
        for value in VALUES
    ]


def try_all(wanted: list[tuple[str, str, str]]) -> list[Trial]:
    """Try them one by one, in a folder of their own that is left as it was."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, _without_work():
        room = Path(folder).resolve() / "a" / "b" / "c"
        _furnish(room)
        os.chdir(room)
        try:
            return [_try(room, *case) for case in wanted]
        finally:
            os.chdir(here)


def _furnish(room: Path) -> None:
    for name in ("photos", "FULL"):
        (room / name).mkdir(parents=True)
    for i in range(3):
        Image.effect_noise((64, 64), 90).convert("RGB").save(room / "photos" / f"{i}.png")
    (room / "FULL" / "thesis.tex").write_text("years of work")
    (room / "FILE").write_text("a file")
    (room / "cache").mkdir()
    latents = np.random.default_rng(0).standard_normal((4, 8, 8), dtype=np.float32)
    sizes = {"original_size": [64, 64], "crop_ltrb": [0, 0, 64, 64]}
    cached = room / "cache" / "photo_0064x0064_sd.npz"
    np.savez(cached, latents=latents, **sizes)
    os.utime(cached, (0, 0))  # nobody is writing it


def _try(room: Path, command: str, option: str, value: str) -> Trial:
    from equivae.cli import main

    words = [command, *BASES[command]]
    if command in IMAGES and option != "dataset_name":
        words += [f"--{IMAGES[command]}", "photos"]
    words += [*NEEDS.get(option, []), f"--{option}", value]
    before, shown = _files(room), io.StringIO()
    outcome, code = "", 0
    with (
        mock.patch.object(sys, "argv", ["equivae", *words]),
        contextlib.redirect_stdout(shown),
        contextlib.redirect_stderr(shown),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except WorkBegan:
            outcome = "taken"
        except BaseException as error:  # what a terminal would show as a traceback
            outcome = f"traceback {type(error).__name__}"
    said = shown.getvalue().strip()
    written = _files(room) - before
    for path in sorted(written, reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return Trial(
        command, option, value, _outcome(outcome, code, said, written, command, option, value), said
    )


def _outcome(
    outcome: str, code: int, said: str, written: set[Path], command: str, option: str, value: str
) -> str:
    if outcome.startswith("traceback") or "Traceback" in said:
        return "traceback"
    if outcome == "taken" or code == 0:
        meant = MEANT.get(f"{command} {option}", MEANT.get(option, set()))
        return "taken, may be meant" if value in meant else "taken, cannot be meant"
    if code != 2 or not re.fullmatch(r"error: [^\n]{1,600}", said):
        return "not one sentence"
    return "refused, but something was written" if written else "refused"


def _files(room: Path) -> set[Path]:
    top = room.parents[2]
    return {path for path in top.rglob("*") if room not in path.parents or path.name != "photos"}


@contextlib.contextmanager
def _without_work() -> Iterator[None]:
    """Stop every command where its work would begin, and keep the embedded VAE once it is read."""
    import accelerate
    import huggingface_hub

    from equivae.files import pretrained

    def begin(*_: Any, **__: Any) -> None:
        raise WorkBegan

    read: Callable[..., Any] = pretrained._load_pretrained
    kept: dict[str, Any] = {}

    def load(name: str, is_folder: bool, options: dict[str, Any]) -> Any:
        key = f"{name} {options}"
        if key not in kept:
            kept[key] = read(name, is_folder, options)
        return kept[key]

    with contextlib.ExitStack() as stack:
        for target in (
            "equivae.reporting.evaluate.measure",
            "equivae.reporting.compare.measure",
            "equivae.operators.fit.fit_operators",
            "equivae.operators.group.fit_operators",
            "equivae.reporting.playground._fitted_on",  # draws images, or reads them
            "equivae.files.export.write_beside",
            "equivae.demo.training_images",
        ):
            stack.enter_context(mock.patch(target, begin))
        stack.enter_context(mock.patch.object(accelerate.Accelerator, "__init__", begin))
        stack.enter_context(mock.patch.object(pretrained, "_load_pretrained", load))
        made = mock.Mock(repo_id="someone/out")
        for name in ("whoami", "create_repo"):
            stack.enter_context(mock.patch.object(huggingface_hub.HfApi, name, return_value=made))
        yield


def main(
    sample: Annotated[int, typer.Option("--sample", help="so many at random, 0 for all")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="of that draw")] = 0,
    save: Annotated[bool, typer.Option("--save/--no-save", help="keep the counts")] = True,
) -> None:
    wanted = cases()
    if sample:
        wanted = random.Random(seed).sample(wanted, sample)
    trials = try_all(wanted)
    counts = collections.Counter(trial.outcome for trial in trials)
    print(
        f"{len(trials)} values over {len({t[:2] for t in wanted})} options of {len(BASES)} commands"
    )
    for outcome in OUTCOMES:
        print(f"{counts[outcome]:6} {outcome}")
    for trial in trials:
        if trial.outcome not in ("refused", "taken, may be meant"):
            line = trial.said.splitlines()[-1][:150] if trial.said else ""
            print(f"{trial.outcome}: {trial.command} --{trial.option} {trial.value[:40]!r}: {line}")
    if save and not sample:
        content = {"values": len(trials), "outcomes": {name: counts[name] for name in OUTCOMES}}
        print(record.save("nonsense_options", content))


if __name__ == "__main__":
    typer.run(main)
