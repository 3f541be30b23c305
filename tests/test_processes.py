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
from safetensors.torch import load_file

import equivae
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
    script = folder.parent / "tune.py"
    script.write_text(SCRIPT)
    paths = [str(Path(__file__).parent), str(Path(equivae.__file__).parents[1])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "1",
    }
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *command, str(script), str(folder), json.dumps(options)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


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
    launch(whole, options)
    checkpoint = whole / "checkpoint-4"
    assert {p.name for p in checkpoint.glob("random_states_*")} == {
        "random_states_0.pkl",
        "random_states_1.pkl",
    }
    assert not list(whole.glob(".*partial*"))
    shutil.copytree(checkpoint, cut / checkpoint.name)
    if (whole / "operators").is_dir():
        shutil.copytree(whole / "operators", cut / "operators")
    launch(cut, {**options, "resume_from_checkpoint": "latest"})

    file = "diffusion_pytorch_model.safetensors"
    assert changed(load_file(whole / file), load_file(cut / file)) == set()
    report = json.loads((whole / "report.json").read_text())
    assert report["history"][-1]["epoch"] == 2  # three steps of 2 x 2 images see 10 images once
    if options.get("latent_cache_mb") == 0:
        found = np.load(whole / ".equivae" / "latents.npy")
        assert len(found) == 10
        assert np.abs(found).max(axis=(1, 2, 3)).min() > 0  # no share was left out
