"""Peak memory of a training step for Stable Diffusion 1.5's VAE, against a 16 GB consumer card.

    python benchmarks/memory.py

Random weights of SD 1.5's shape (83.7 M parameters), float32, batch 1, AdamW, the sampled objective under
rot180, which decodes every image once. Two figures, each without and with gradient checkpointing:

- `tensors`: the peak of all live tensors (weights, gradients, optimiser state, activations, temporaries) in
  the second step, followed tensor by tensor under torch's fake tensors: nothing is computed. A card needs
  this, and its context and convolution workspaces beside it.
- `resident`: the highest resident memory of a process that takes a real step on the CPU, the optimiser's
  state there already, less what it held before there was a model. The CPU's own workspaces and its
  allocator are part of it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from contextlib import nullcontext
from typing import Annotated, Any

import torch
import typer
from diffusers import AutoencoderKL

import equivae
import record

SHAPE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
CARD_GB = 16
GIB = 2**30


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


def main(
    resolution: Annotated[int, option("resolution", "side of the image in pixels")] = 512,
    resident: Annotated[
        bool, option("resident/--no_resident", "take the real steps as well")
    ] = True,
    one: Annotated[str, option("one", "one measurement, as JSON: tensors or resident")] = "",
    checkpointing: Annotated[bool, option("checkpointing", "of that measurement")] = False,
    autocast: Annotated[bool, option("autocast", "of that measurement, in bf16")] = False,
) -> None:
    if one:
        found = (_tensors if one == "tensors" else _resident)(resolution, checkpointing, autocast)
        print(json.dumps(found))
        return
    rows = []
    for kind in ("tensors", *(["resident"] if resident else [])):
        for bf16 in (False, True) if kind == "tensors" else (False,):
            for checkpoint in (False, True):
                row = {
                    "measured": kind,
                    "gradient_checkpointing": checkpoint,
                    "bf16_autocast": bf16,
                }
                row |= _in_a_process(kind, resolution, checkpoint, bf16)
                row["share_of_16_gb"] = round(row["peak_gib"] * GIB / (CARD_GB * 1e9), 3)
                rows.append(row)
                print(json.dumps(row), flush=True)
    content = {
        "what": (__doc__ or "").split("\n\n", 2)[2].strip(),
        "resolution": resolution,
        "batch": 1,
        "rows": rows,
    }
    print(record.save("memory", content))


def _in_a_process(kind: str, resolution: int, checkpoint: bool, bf16: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", kind, "--resolution", str(resolution)]
    command += ["--checkpointing"] * checkpoint + ["--autocast"] * bf16
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _resident(resolution: int, checkpointing: bool, autocast: bool) -> dict[str, Any]:
    warm = torch.nn.Conv2d(
        3, 8, 3, padding=1
    )  # the libraries' own start-up belongs to the baseline
    warm(torch.zeros(1, 3, 64, 64)).sum().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    vae = AutoencoderKL(**SHAPE).train()
    if checkpointing:
        vae.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-5)
    loss_fn = equivae.EquivarianceLoss("rot180", schedule="sampled")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, resolution, resolution, generator=generator) * 2 - 1
    for parameter in vae.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        loss = loss_fn(vae, images, generator=generator).loss
    loss.backward()
    optimizer.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "peak_gib": round((peak - before) * 1024 / GIB, 2),
        "seconds_per_step": round(time.perf_counter() - began, 1),
    }


def _tensors(resolution: int, checkpointing: bool, autocast: bool) -> dict[str, Any]:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    with FakeTensorMode():
        vae = AutoencoderKL(**SHAPE).train()
        if checkpointing:
            vae.enable_gradient_checkpointing()
        optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-5)
        # The draw needs values; without a transform every image is decoded once as well.
        loss_fn = equivae.EquivarianceLoss([], schedule="dual")
        view = equivae.Autoencoder(vae)
        images = torch.zeros(1, 3, resolution, resolution)
        tracker = MemTracker()
        tracker.track_external(vae, optimizer)
        with tracker:
            for _ in range(2):  # the optimiser's state is there from the second step on
                tracker.reset_mod_stats()
                with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
                    loss = loss_fn(view, images).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        (parts,) = tracker.get_tracker_snapshot("peak").values()
    named = {str(kind).rsplit(".", 1)[-1].lower(): amount for kind, amount in parts.items()}
    total = named.pop("total")
    return {
        "peak_gib": round(total / GIB, 2),
        "at_the_peak_gib": {k: round(v / GIB, 2) for k, v in named.items() if v > GIB / 200},
    }


if __name__ == "__main__":
    typer.run(main)
