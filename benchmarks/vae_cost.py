"""What a fine-tuning step costs on the VAEs of Stable Diffusion 1.5, SDXL and FLUX: work and memory.

    python benchmarks/vae_cost.py

Nothing is trained: one training step of every published architecture runs on tensors without values (the
meta device), which counts its floating-point operations and the bytes that it keeps for the backward
pass. The kernels' workspace, the allocator's fragments and, with gradient checkpointing, one block's
activations at a time come on top.
"""

from __future__ import annotations

from typing import Any

import torch
import typer
from diffusers import AutoencoderKL
from diffusers.utils import logging
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

import record

COMMON: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "SD 1.5, SDXL (4 channels)": {"latent_channels": 4},
    "SD 3, FLUX (16 channels)": {
        "latent_channels": 16,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
}
CASES = [
    (256, "all, two decodes"),
    (256, "all"),
    (256, "decoder"),
    (512, "all"),
    (512, "decoder"),
    (1024, "decoder"),
]
BYTES = {"bf16": 2, "float32": 4}
ADAMW = 3 * BYTES["float32"]  # the gradient and two moments of every weight that learns


def step(vae: AutoencoderKL, images: Tensor, train: str) -> Tensor:
    """One encode (none with cached latents), and one decode per image or, as published, two."""
    if train == "decoder":
        side = images.shape[-1] // 8
        channels = int(vae.config.latent_channels)
        latents = torch.empty(len(images), channels, side, side, device="meta", dtype=images.dtype)
    else:
        latents = vae.encode(images).latent_dist.mode()
    decoded: Tensor = vae.decode(latents.flip(-1, -2)).sample
    loss = (decoded - images.flip(-1, -2)).square().mean()
    if train.endswith("two decodes"):
        loss = loss + (vae.decode(latents).sample - images).square().mean()
    return loss


def kept_bytes(vae: AutoencoderKL, images: Tensor, train: str) -> int:
    """Bytes kept for the backward pass, each storage once, weights left out."""
    weights = {p.untyped_storage()._cdata for p in vae.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = step(vae, images, train)
    assert loss.requires_grad
    return sum(kept.values())


def measure(config: dict[str, Any], resolution: int, train: str) -> dict[str, Any]:
    with torch.device("meta"):
        vae = AutoencoderKL(**COMMON, **config).to(torch.bfloat16).train()
    learning: list[nn.Module] = [vae.decoder]
    if vae.post_quant_conv is not None:
        learning.append(vae.post_quant_conv)
    if train == "decoder":
        vae.requires_grad_(False)
        for part in learning:
            part.requires_grad_(True)
    images = torch.empty(1, 3, resolution, resolution, device="meta", dtype=torch.bfloat16)
    counter = FlopCounterMode(display=False)
    with counter:
        step(vae, images, train).backward()
    plain = kept_bytes(vae, images, train)
    vae.enable_gradient_checkpointing()
    checkpointed = kept_bytes(vae, images, train)
    weights = sum(p.numel() for p in vae.parameters())
    trainable = sum(p.numel() for p in vae.parameters() if p.requires_grad)
    return {
        "resolution": resolution,
        "train": train,
        "parameters": weights,
        "tflop_per_image": counter.get_total_flops() / 1e12,
        "state_gb": (weights * BYTES["float32"] + trainable * ADAMW) / 1e9,
        "activations_gb_per_image": plain / 1e9,
        "checkpointed_gb_per_image": checkpointed / 1e9,
    }


def main() -> None:
    logging.set_verbosity_error()
    rows = []
    for name, config in ARCHITECTURES.items():
        for resolution, train in CASES:
            rows.append({"vae": name, **measure(config, resolution, train)})
            shown = {k: round(v, 2) if isinstance(v, float) else v for k, v in rows[-1].items()}
            print(shown, flush=True)
    print(record.save("vae_cost", {"precision": "bf16 autocast, float32 weights", "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
