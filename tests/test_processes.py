"""Two processes fine-tune together, and a run of theirs is resumed bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

import equivae
from forked import PATHS, run_two
from models import noise, tiny_kl
from test_finetune import changed

SCRIPT = """
import json, sys
from equivae import Report
from equivae.training import session

session._release = lambda lock, folder: lock.release()  # cached latents are looked at afterwards
from test_processes import finetune

Report.figures = lambda self: {}
finetune(sys.argv[1], **json.loads(sys.argv[2]))
"""


def finetune(folder: str, **options: Any) -> None:
    equivae.finetune(
        tiny_kl(),
        noise(10, 3, 16, 16),
        ["rot180", "hflip"],
        folder,
        validation_images=noise(3, 3, 16, 16, seed=1),
        train_batch_size=2,
        max_train_steps=6,
        checkpointing_steps=2,
        checkpoints_total_limit=None,
        sweep_samples=0,
        progress=False,
        **options,
    )


def launch(folder: Path, options: dict[str, Any]) -> None:
    done = run_two(written(folder.parent, SCRIPT), folder, json.dumps(options))
    assert done.returncode == 0, done.stderr[-3000:]


def written(folder: Path, code: str) -> Path:
    script = folder / "tune.py"
    script.write_text(code)
    return script


def torchrun(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A script in two processes, as users start it."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")]),
    }
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [sys.executable, *command, str(script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"sample_posterior": True, "use_ema": True},
        {"train": "decoder", "latent_cache_mb": 0},
        {"recipe": "fitted", "crop_size": None, "kernel_size": 3},
    ],
    ids=["all", "decoder", "fitted"],
)
def test_two_processes_resume_bit_for_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    if options.get("recipe") == "fitted":
        options = {**options, "latent_cache_dir": str(tmp_path / "kept")}
    launch(whole, options)
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "kept").glob("latents-*/rows.npy")}
    checkpoint = whole / "checkpoint-4"
    assert {p.name for p in checkpoint.glob("random_states_*")} == {
        "random_states_0.pkl",
        "random_states_1.pkl",
    }
    assert not list(whole.glob(".*partial*"))
    shutil.copytree(checkpoint, cut / checkpoint.name)
    for name in ("operators", "operators-fitted"):
        if (whole / name).is_dir():
            shutil.copytree(whole / name, cut / name)
    launch(cut, {**options, "resume_from_checkpoint": "latest"})

    file = "diffusion_pytorch_model.safetensors"
    assert changed(load_file(whole / file), load_file(cut / file)) == set()
    report = json.loads((whole / "report.json").read_text())
    assert report["history"][-1]["epoch"] == 2  # three steps of 2 x 2 images see 10 images once
    if options.get("recipe") == "fitted":  # built once, by both, and used again
        (file,) = kept
        assert kept == {p: p.stat().st_mtime_ns for p in file.parents[1].glob("latents-*/rows.npy")}
        found = np.load(file)
        assert len(found) == 10
        assert np.abs(found).max(axis=(1, 2, 3)).min() > 0
    if options.get("latent_cache_mb") == 0:
        found = np.load(whole / ".equivae" / "latents.npy")
        assert len(found) == 10
        assert np.abs(found).max(axis=(1, 2, 3)).min() > 0  # no share was left out


TEN_LINES = """
import json, sys
import torch
import equivae
from models import noise, tiny_kl

equivae.Report.figures = lambda self: {}
folder = sys.argv[1]
images = noise(10, 3, 16, 16)
options = {"max_train_steps": 2, "train_batch_size": 2, "progress": False, "logging_steps": 1}
options |= {"schedule": "dual", "bottleneck_steps": 0}  # no draws
result = equivae.finetune(tiny_kl(), images, "rot180", f"{folder}/one", **options)
report = equivae.evaluate(result.vae, images, ["rot180", "hflip"], progress=False)
again = equivae.finetune(result.vae, images, "hflip", f"{folder}/two", **options)
torch.distributed.barrier()  # the script's own, after the library's
rank = torch.distributed.get_rank()
found = {"history": result.history, "mse": report.metrics.reconstruction_mse}
with open(f"{folder}/rank-{rank}.json", "w") as file:
    json.dump(found, file)
"""


def test_a_script_goes_on_after_a_fine_tune(tmp_path: Path) -> None:
    """README's ten lines, a second fine-tune, and a barrier of the script's own."""
    done = torchrun(written(tmp_path, TEN_LINES), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    told = [(tmp_path / f"rank-{rank}.json").read_text() for rank in (0, 1)]
    assert told[0] == told[1]  # the losses of both processes, on both
    assert {"one", "two"} <= {p.name for p in tmp_path.iterdir()}

    alone = equivae.finetune(  # as one process with batches of twice the size
        *(tiny_kl(), noise(10, 3, 16, 16), "rot180", tmp_path / "alone"),
        **{"max_train_steps": 2, "train_batch_size": 4, "progress": False, "logging_steps": 1},
        **{"schedule": "dual", "bottleneck_steps": 0},
    )
    for found, expected in zip(json.loads(told[0])["history"], alone.history, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    both = load_file(tmp_path / "one" / "diffusion_pytorch_model.safetensors")
    start = tiny_kl().state_dict()
    for name, weight in alone.vae.state_dict().items():
        assert torch.allclose(both[name], weight, atol=1e-6), name
        assert not torch.allclose(start[name], weight, atol=1e-4) or "quant" in name


FAILING = """
import os, sys
import equivae
from models import noise, tiny_kl

calls = []


def loss(decoded, target):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) > 4:
        os.kill(os.getpid(), 9)
    return (decoded - target).square().mean()


loss.__name__ = "mse" if sys.argv[2] == "kill" else "other"
equivae.Report.figures = lambda self: {}
options = {"max_train_steps": 6, "train_batch_size": 2, "progress": False, "bottleneck_steps": 0}
options |= {"checkpointing_steps": 1, "resume_from_checkpoint": "latest", "schedule": "dual"}
reconstruction = loss if sys.argv[2] == "kill" else "mse"
equivae.finetune(
    tiny_kl(), noise(10, 3, 16, 16), "rot180", sys.argv[1], reconstruction=reconstruction, **options
)
"""


def test_one_process_killed_ends_all_and_the_run_goes_on(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    script = written(tmp_path, FAILING)
    assert run_two(script, whole, "whole").returncode == 0
    done = torchrun(script, cut, "kill")
    assert done.returncode != 0
    assert "LostProcessError: another process of the run ended, and process 0" in done.stderr
    assert "Connection closed by peer" not in done.stderr
    assert list(cut.glob("checkpoint-*"))
    done = run_two(script, cut, "again")
    assert done.returncode == 0, done.stderr[-3000:]
    file = "diffusion_pytorch_model.safetensors"
    assert changed(load_file(whole / file), load_file(cut / file)) == set()


REFUSED = """
import os
import sys
import equivae
from models import noise, tiny_kl

try:
    equivae.finetune(tiny_kl(), noise(4, 3, 16, 16), "rot180", sys.argv[1], progress=False)
except equivae.InputError as error:
    with open(f"{sys.argv[1]}-{os.environ['RANK']}", "w") as file:
        file.write(str(error))
"""


def test_what_the_main_process_refuses_is_refused_on_all(tmp_path: Path) -> None:
    (tmp_path / "out" / ".equivae").mkdir(parents=True)
    with FileLock(tmp_path / "out" / ".equivae" / "lock"):
        done = run_two(written(tmp_path, REFUSED), tmp_path / "out")
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        told = (tmp_path / f"out-{rank}").read_text()
        assert told.startswith("another run is writing to")
