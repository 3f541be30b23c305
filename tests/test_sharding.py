"""Two processes measure what one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import equivae
from forked import run_two
from models import MarkedAE, noise

TRANSFORMS = ["c4", "random_rotate"]
OPTIONS = {"eval_batch_size": 2, "sweep_samples": 2, "progress": False}


def features(images):
    return images.mean((2, 3))


def distance(a, b):
    return (a - b).square().mean((1, 2, 3))


OPTIONS |= {"protocol": "imagenet", "resolution": 16, "features": features, "lpips": distance}
SCRIPT = """
import json, sys
from accelerate import PartialState
import equivae
from test_sharding import OPTIONS, TRANSFORMS, vae_and_images

report = equivae.evaluate(*vae_and_images(), TRANSFORMS, baseline=equivae_baseline(), **OPTIONS)
state = PartialState()
with open(f"{sys.argv[1]}/{state.process_index}.json", "w") as file:
    json.dump(report.to_dict() | {"processes": [state.num_processes, state.backend]}, file)
""".replace("equivae_baseline()", "vae_and_images(0.3)[0]")


def vae_and_images(up: float = 0.2):
    # Seven images in batches of two, of which the last is half full.
    return MarkedAE(up, 0.1), noise(7, 3, 16, 16)


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    script = tmp_path / "measure.py"
    script.write_text(SCRIPT)
    done = run_two(script, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    alone = equivae.evaluate(
        *vae_and_images(), TRANSFORMS, baseline=vae_and_images(0.3)[0], **OPTIONS
    ).to_dict()
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["processes"] == [2, "gloo"]
        assert found["metrics"]["imagenet"]["rfid"] > 0
        for key in ("metrics", "before"):
            assert _close(found[key], alone[key]) == []


def _close(a: object, b: object, where: str = "") -> list[str]:
    """Where two JSON documents differ by more than rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: {sorted(a.keys() ^ b.keys())}"]
        return [text for key in a for text in _close(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return [f"{where}: {len(a)} and {len(b)}"]
        pairs = enumerate(zip(a, b, strict=True))
        return [text for i, (x, y) in pairs for text in _close(x, y, f"{where}/{i}")]
    same = a == pytest.approx(b, rel=1e-5, abs=1e-7) if isinstance(a, float) else a == b
    return [] if same else [f"{where}: {a} and {b}"]
