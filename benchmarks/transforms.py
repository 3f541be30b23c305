"""How long each exact op takes, as a ratio to a plain copy of the same tensor.

    python benchmarks/transforms.py [--output benchmarks/results/transforms.json]

Every op is timed in turns with the copy, so that both meet the same load, and the median of the ratios
is taken. A view (identity, transpose, crop) costs nothing until it is read; `contiguous` is the time
with the copy that a convolution then asks for.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import equivae
from equivae.transforms import transform_table

SHAPES = {"pixel": (8, 3, 256, 256), "latent": (64, 4, 64, 64)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/transforms.json"))
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    tensors = {side: torch.randn(shape, device=options.device) for side, shape in SHAPES.items()}
    rows = []
    print(f"{'transform':28} {'op':7} {'ratio':>6} {'contiguous':>11}   (1.00 is a plain copy)")
    for info in transform_table():
        transform = equivae.get_transform(info.name)
        if info.group not in ("lattice", "representation"):
            continue
        for side, tensor in tensors.items():
            op = getattr(transform, side)
            ratio = measure(op, tensor, options.repeats)
            contiguous = measure(lambda x, op=op: op(x).contiguous(), tensor, options.repeats)
            view = op(tensor).untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
            rows.append(
                {
                    "transform": transform.name,
                    "op": side,
                    "shape": list(tensor.shape),
                    "ratio_to_copy": round(ratio, 3),
                    "contiguous_ratio_to_copy": round(contiguous, 3),
                    "view": view,
                }
            )
            kind = "view" if view else ""
            print(f"{transform.name:28} {side:7} {ratio:6.2f} {contiguous:11.2f}   {kind}")
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            "device": options.device,
            "threads": torch.get_num_threads(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "dtype": "float32",
        "repeats": options.repeats,
        "results": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")


def measure(op: Callable[[Tensor], Tensor], tensor: Tensor, repeats: int) -> float:
    """The median over repeats of the time of `op` divided by that of a copy just before."""
    for _ in range(3):
        op(tensor), tensor.clone()
    return statistics.median(
        seconds(op, tensor) / seconds(torch.clone, tensor) for _ in range(repeats)
    )


def seconds(op: Callable[[Tensor], Tensor], tensor: Tensor) -> float:
    if tensor.is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    op(tensor)
    if tensor.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
