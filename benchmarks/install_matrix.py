"""Whether equivae installs beside the programs that people use it with, without moving what they pin.

    python benchmarks/install_matrix.py

For each program its pins are given to pip as constraints, and pip resolves equivae with them, without
installing anything (it needs the network). Beside it, what pip would do without constraints: the versions
of the pinned packages that it would replace. The pins are facts from the programs' requirements files, of the
commits named here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).parents[1]

PINS = {
    "sd-scripts (48d368f)": """
        accelerate==1.6.0 transformers==4.54.1 diffusers==0.32.1 opencv-python==4.10.0.84 einops==0.7.0
        safetensors==0.4.5 huggingface-hub==0.34.3 rich==14.1.0 sentencepiece==0.2.1
    """,
    "OneTrainer (23df383)": """
        numpy==2.2.6 pillow==12.3.0 tqdm==4.67.1 PyYAML==6.0.2 huggingface-hub==1.22.0 scipy==1.15.3
        matplotlib==3.10.3 accelerate==1.12.0 safetensors==0.8.0 transformers==5.5.4 psutil==7.2.2
        requests==2.34.2
    """,
    "ComfyUI (a125cd8)": """
        transformers==4.57.1 tokenizers==0.22.1 safetensors==0.6.2 huggingface-hub==0.35.3 kornia==0.8.1
        einops==0.8.1 numpy==2.3.3
    """,
}


def resolve(constraints: Path | None) -> dict[str, str] | str:
    """Versions by name that pip would install in an empty environment, or what it says against it."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    command += ["--report", "-", str(ROOT)]
    if constraints is not None:
        command += ["--constraint", str(constraints)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    found = json.loads(done.stdout)["install"]
    return {_normal(one["metadata"]["name"]): one["metadata"]["version"] for one in found}


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def row(pins: list[str], free: dict[str, str] | str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(pins) + "\n")
        found = resolve(constraints)
    if isinstance(found, str):
        return {"resolves": False, "reason": found}
    pinned = {_normal(name): version for name, version in (pin.split("==") for pin in pins)}
    moved = {
        name: f"{version} -> {free[name]}"
        for name, version in pinned.items()
        if isinstance(free, dict) and name in free and free[name] != version
    }
    own = {name: found[name] for name in ("datasets", "diffusers", "huggingface-hub", "einops")}
    return {"resolves": True, "installed": own, "moved_without_constraints": moved}


def main(
    program: Annotated[str, typer.Option("--program", help="a part of its name; all without")] = "",
) -> None:
    free = resolve(None)
    for name, pins in PINS.items():
        if program.lower() in name.lower():
            print(json.dumps({"program": name, **row(pins.split(), free)}), flush=True)


if __name__ == "__main__":
    typer.run(main)
