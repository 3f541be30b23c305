"""How benchmarks keep their results: JSON with the command, the machine, the date and the commit."""

from __future__ import annotations

import datetime
import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
DATA = Path(__file__).parent / "data"  # where fetch_data.py puts them


def save(name: str, content: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write `results/<name>.json`."""
    folder.mkdir(exist_ok=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    record = {
        "command": command(),
        "machine": machine(),
        "date": today(),
        "commit": commit,
        "torch": torch.__version__,
        **content,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def command() -> str:
    """The command line of this run, without where its data lay."""
    script, *arguments = sys.argv
    if "--data" in arguments:
        place = arguments.index("--data")
        del arguments[place : place + 2]
    return shlex.join(["python", "benchmarks/" + Path(script).name, *arguments])


def today() -> str:
    return datetime.date.today().isoformat()


def machine() -> str:
    """The processor, and how many of its threads torch used, or the GPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [s for s in cpuinfo.read_text().splitlines() if s.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    threads = torch.get_num_threads()
    return f"{model}, {threads} thread{'s' * (threads != 1)}"
