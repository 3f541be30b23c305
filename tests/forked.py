"""Scripts in fresh processes, forked from one that has imported torch and diffusers but not equivae.

Two thirds of the time of a small script in an interpreter of its own are those imports.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path

import equivae

PRELOADED = [
    "accelerate",
    "datasets",
    "diffusers.models.autoencoders",
    "diffusers.optimization",
    "diffusers.training_utils",
    "einops",
    "jinja2",
    "kornia",
    "matplotlib.figure",
    "rich.table",
    "torch.distributed",
    "tqdm.auto",
    "typer",
]
PATHS = [str(Path(__file__).parent), str(Path(equivae.__file__).parents[1])]


def run_forked(
    script: Path,
    *arguments: object,
    environment: dict[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """A script as `python script arguments` would run it."""
    with _started(script, arguments, [environment or {}]) as (processes, read):
        processes[0].join(timeout)
        code = processes[0].exitcode
        if code is None:
            raise subprocess.TimeoutExpired(str(script), timeout)
        return subprocess.CompletedProcess([str(script)], code, *read())


def run_code(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Code as `python -c` would run it."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "code.py"
        script.write_text(code, encoding="utf-8")
        return run_forked(script, *arguments)


def run_two(
    script: Path, *arguments: object, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """A script in two processes that find each other as those of torchrun do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    with _started(script, arguments, ranks) as (processes, read):
        for process in processes:
            process.join(timeout)
            if process.exitcode is None:
                raise subprocess.TimeoutExpired(str(script), timeout)
        codes = [process.exitcode or 0 for process in processes]
        return subprocess.CompletedProcess([str(script)], max(codes, key=abs), *read())


@contextlib.contextmanager
def _started(script: Path, arguments: tuple[object, ...], environments: list[dict[str, str]]):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        processes: list[BaseProcess] = []
        for environment in environments:
            call = (str(script), list(map(str, arguments)), {**os.environ, **environment})
            processes.append(context.Process(target=_run, args=(*call, str(out), str(err))))

        def read() -> tuple[str, str]:
            return out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")

        try:
            for process in processes:
                process.start()
            yield processes, read
        finally:
            for process in processes:
                process.kill()
                process.join()


def _run(
    script: str, arguments: list[str], environment: dict[str, str], out: str, err: str
) -> None:
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [script, *arguments]
    sys.path[:0] = [p for p in PATHS if p not in sys.path]
    for name in [n for n in sys.modules if n.split(".")[0] == "equivae"]:
        del sys.modules[name]  # this module's own import of the light package
    runpy.run_path(script, run_name="__main__")
