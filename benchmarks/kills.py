"""Kill fine-tunes with SIGKILL, resume them, and compare what they leave with an unbroken run, bit for bit.

    python benchmarks/kills.py --kills 300 --folder killed

A run is killed at a random instant, or just before or after its k-th call that makes, renames, removes or
syncs something on the disk, up to three times in a row, and then resumed with `latest` until it ends.
Compared with the unbroken run: the names of all files, the bytes of the saved VAE, of the latent ops and of
every file of the checkpoints (weights, optimiser, schedule, average, random states), the history, and
`report.json` but for its times. What was tried stands in `FOLDER/kills.jsonl`; called again, it goes on from
there. Every run is forked from one process that has imported everything, which takes milliseconds.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import pkgutil
import random
import re
import shutil
import signal
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import AutoencoderKL
from PIL import Image
from safetensors import safe_open

import equivae

RECIPES: dict[str, dict[str, Any]] = {
    "plain": {"bottleneck_steps": 0},
    "bottleneck": {"bottleneck_steps": 4, "validation_steps": 3},
    "cached latents": {"recipe": "decoder", "latent_cache_mb": 0, "distillation": 0.2},
    "fitted": {"recipe": "fitted", "kernel_size": 3},
    "ema": {"bottleneck_steps": 0, "use_ema": True, "checkpoints_total_limit": 1},
    "accumulation": {
        "bottleneck_steps": 0,
        "gradient_accumulation_steps": 2,
        "sample_posterior": True,
    },
    "lora": {"train": "lora", "lora_rank": 2},
    "adversarial": {
        "bottleneck_steps": 0,
        # PatchGAN has running means, which are part of the state.
        "terms": {"adversarial": {"channels": 4, "depth": 1, "start_step": 2}},
    },
    "stream": {"bottleneck_steps": 0, "shuffle_buffer": 3, "stream_head": 3},
    "buckets": {
        "bottleneck_steps": 0,
        "resolution": 16,
        "enable_bucket": True,
        "bucket_reso_steps": 4,
        "random_flip": True,
    },
}
PICTURES = {"stream": "shards", "buckets": "pictures"}  # of others the images are a tensor
COMMON: dict[str, Any] = {
    "max_train_steps": 6,
    "train_batch_size": 2,
    "logging_steps": 4,
    "checkpointing_steps": 2,
    "max_eval_samples": 2,
    "resume_from_checkpoint": "latest",
    "progress": False,
}
CALLS = ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir")
PRELOADED = ("diffusers.training_utils", "einops", "kornia", "matplotlib.figure", "torch._dynamo")
AT_MOST = 3  # kills in a row


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


def main(
    kills: Annotated[int, option("kills", "how many, together with those tried before")] = 300,
    folder: Annotated[Path, option("folder", "where the runs and the record of them lie")] = Path(
        "killed"
    ),
    recipes: Annotated[str, option("recipes", "which, separated by commas")] = ",".join(RECIPES),
    seed: Annotated[int, option("seed", "of the instants")] = 0,
) -> None:
    torch.set_num_threads(1)  # no pool of threads that a fork would lose
    _import_everything()
    folder.mkdir(parents=True, exist_ok=True)
    _write_pictures(folder)
    record = folder / "kills.jsonl"
    tried = (
        [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    )
    wholes = {name: _whole(folder, name) for name in recipes.split(",")}
    while sum(len(t["kills"]) for t in tried) < kills:
        name = list(wholes)[len(tried) % len(wholes)]
        tried.append(_trial(folder, name, wholes[name], random.Random(f"{seed}/{len(tried)}")))
        with record.open("a") as file:
            file.write(json.dumps(tried[-1]) + "\n")
    print(_table(tried))
    if any(t["different"] for t in tried):
        sys.exit(1)


def _import_everything() -> None:
    for module in pkgutil.walk_packages(equivae.__path__, "equivae."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in PRELOADED:
        importlib.import_module(name)


def _whole(folder: Path, name: str) -> dict[str, Any]:
    """The unbroken run: what it leaves, how long it takes, and how many calls reach the disk."""
    run, counts = folder / f"whole {name}", folder / "calls"
    shutil.rmtree(run, ignore_errors=True)
    began = time.monotonic()
    child = _fork(run, name, lambda: _count(counts))
    status = os.waitpid(child, 0)[1]
    if status:
        sys.exit(f"the unbroken run {name!r} failed: {(folder / 'errors').read_text()[-2000:]}")
    seconds = time.monotonic() - began
    return {"left": _left(run), "seconds": seconds, "calls": int(counts.read_text())}


def _trial(folder: Path, name: str, whole: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    killed: list[dict[str, str]] = []
    for _ in range(draw.randint(1, AT_MOST)):
        by_call = draw.random() < 0.6
        if by_call:
            call, before = draw.randrange(whole["calls"]), draw.random() < 0.5
            child = _fork(run, name, lambda call=call, before=before: _kill_at(call, before))
        else:
            child = _fork(run, name, lambda: None)
            _kill_after(child, draw.uniform(0, whole["seconds"]))
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            break
        killed.append({"by": "call" if by_call else "clock", "when": _stage(run)})
    status = os.waitpid(_fork(run, name, lambda: None), 0)[1]
    different = _differences(whole["left"], _left(run))
    if status:
        different.append("the resumed run failed: " + (folder / "errors").read_text()[-500:])
    return {"recipe": name, "kills": killed, "different": different}


def _fork(run: Path, name: str, prepare: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        errors = os.open(run.parent / "errors", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        # Drawing would take most of such a short run.
        equivae.Report.figures = lambda self: {}  # type: ignore[method-assign]
        equivae.Report.to_html = lambda self: "page"  # type: ignore[method-assign]
        prepare()
        images: Any = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(3))
        images = run.parent / PICTURES[name] if name in PICTURES else images * 1.8 - 0.9
        equivae.finetune(_vae(), images, "rot180", run, **{**COMMON, **RECIPES[name]})
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        if status == 0 and _COUNTED:
            _COUNTED[0]()
        os._exit(status)


def _write_pictures(folder: Path) -> None:
    """Eleven pictures of several shapes, and squares in three shards."""
    generator = torch.Generator().manual_seed(4)
    (folder / "shards").mkdir(exist_ok=True)
    (folder / "pictures").mkdir(exist_ok=True)
    for shard in range(3):
        with tarfile.open(folder / "shards" / f"{shard}.tar", "w") as tar:
            for i in range(3 + shard % 2):
                tar.add(_picture(folder / "square.png", 16, 16, generator), f"{shard}{i}.png")
    for i in range(11):
        _picture(folder / "pictures" / f"{i}.png", 16 + 4 * (i % 3), 24 - 3 * (i % 4), generator)


def _picture(path: Path, height: int, width: int, generator: torch.Generator) -> Path:
    pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    path.write_bytes(file.getvalue())
    return path


_COUNTED: list[Callable[[], object]] = []


def _vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        mid_block_add_attention=False,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    ).eval()


def _wrapped(around: Callable[[Callable[[], Any]], Any]) -> None:
    """Have every call that reaches the disk pass through `around`."""
    for call in CALLS:
        real = getattr(os, call)
        setattr(os, call, lambda *a, real=real, **k: around(lambda: real(*a, **k)))


def _count(file: Path) -> None:
    seen = Counter[str]()

    def around(call: Callable[[], Any]) -> Any:
        seen["calls"] += 1
        return call()

    _wrapped(around)
    _COUNTED.append(lambda: file.write_text(str(seen["calls"])))


def _kill_at(number: int, before: bool) -> None:
    seen = Counter[str]()

    def around(call: Callable[[], Any]) -> Any:
        seen["calls"] += 1
        here = seen["calls"] == number + 1
        if here and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call()
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    _wrapped(around)


def _kill_after(child: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)


def _stage(run: Path) -> str:
    """What the run was about when it was killed, by what it left."""
    there = {path.name for path in run.iterdir()} if run.is_dir() else set()
    if {"config.json", ".files.partial", "report.json", "README.md"} & there:
        return "final save"
    if any(name.startswith(".checkpoint-") for name in there):
        return "writing a checkpoint"
    return "after a checkpoint" if any("checkpoint-" in n for n in there) else "before the first"


def _left(run: Path) -> dict[str, str]:
    return {p.relative_to(run).as_posix(): _content(p) for p in _files(run)}


def _files(run: Path) -> Iterator[Path]:
    return (p for p in sorted(run.rglob("*")) if p.is_file() or not any(p.iterdir()))


def _content(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    if path.suffix in (".md", ".html"):
        return "a text with times in it"
    content = path.read_bytes()
    if path.suffix == ".safetensors":  # which writes its header in any order
        with safe_open(path, "pt") as file:
            told = {
                "": re.sub(
                    r'"seconds": [0-9.e-]+', "", str(sorted((file.metadata() or {}).items()))
                )
            }
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                told[name] = [str(tensor.dtype), [*tensor.shape], tensor.flatten().tolist()]
        content = json.dumps(told, sort_keys=True).encode()
    elif path.name == "done.json":
        told = json.loads(content)
        told["files"] = sorted(
            told["files"]
        )  # without the checksums, one of the report with its times
        content = json.dumps(told, sort_keys=True).encode()
    elif path.name in ("run.json", "report.json"):
        told = json.loads(content)
        told.pop("files", None)  # checksums, of the headers too
        for place, key in ((told, "created"), (told, "seconds"), (told["settings"], "seconds")):
            place.pop(key, None)
        content = json.dumps(told, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def _differences(whole: dict[str, str], found: dict[str, str]) -> list[str]:
    return sorted(
        name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name)
    )


def _table(tried: list[dict[str, Any]]) -> str:
    stages = ("before the first", "after a checkpoint", "writing a checkpoint", "final save")
    head = ["recipe", *stages, "kills", "at a disk call", "runs", "runs that differ"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in [*dict.fromkeys(t["recipe"] for t in tried), "all"]:
        mine = [t for t in tried if name in (t["recipe"], "all")]
        kills = [kill for t in mine for kill in t["kills"]]
        when = Counter(kill["when"] for kill in kills)
        calls = sum(kill["by"] == "call" for kill in kills)
        differ = sum(bool(t["different"]) for t in mine)
        row = [name, *(when[s] for s in stages), len(kills), calls, len(mine), differ]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    told = [f"{t['recipe']}: {', '.join(t['different'])}" for t in tried if t["different"]]
    return "\n".join([*lines, *told])


if __name__ == "__main__":
    typer.run(main)
