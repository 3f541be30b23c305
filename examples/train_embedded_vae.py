"""Train the autoencoder that ships in the wheel (`equivae.zoo`), from nothing.

An ordinary f4 AutoencoderKL with 4 latent channels, trained to reconstruct procedural dead-leaves
images and the public-domain and CC0 photographs that scikit-image installs. Nothing in it asks for
equivariance: it has to be as far from equivariant as any ordinary VAE. Three photographs (astronaut,
chelsea, coffee) are held out, because the demo tests on them.

    pip install "equivae[dev]"
    python examples/train_embedded_vae.py --output_dir embedded-vae

Interrupted, it goes on from its last checkpoint when called again with the same output folder.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import skimage.data
import torch
import typer
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import AutoencoderKL
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader, Dataset

from equivae.data import DeadLeaves

PHOTOGRAPHS = [
    "brick",
    "camera",
    "cell",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "retina",
    "rocket",
]


class Crops(Dataset[torch.Tensor]):
    """Random crops, flipped and turned at random, `(3, size, size)` in [-1, 1]."""

    def __init__(self, sources: list[torch.Tensor], length: int, size: int, seed: int) -> None:
        self.sources, self.length, self.size, self.seed = sources, length, size, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        rng = np.random.default_rng([self.seed, index])
        image = self.sources[rng.integers(len(self.sources))]
        top = rng.integers(image.shape[-2] - self.size + 1)
        left = rng.integers(image.shape[-1] - self.size + 1)
        crop = image[:, top : top + self.size, left : left + self.size]
        crop = torch.rot90(crop, int(rng.integers(4)), (-2, -1))
        return (crop.flip(-1) if rng.random() < 0.5 else crop).float().div(127.5).sub(1)


def photographs(size: int) -> list[torch.Tensor]:
    """Every photograph at full, half and quarter size, uint8 `(3, H, W)`."""
    pyramid = []
    for name in PHOTOGRAPHS:
        image = getattr(skimage.data, name)()
        image = np.stack([image] * 3, -1) if image.ndim == 2 else image[..., :3]
        tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float()[None]
        for factor in (1, 2, 4):
            if min(tensor.shape[-2:]) // factor >= size:
                small = torch.nn.functional.avg_pool2d(tensor, factor)
                pyramid.append(small[0].round().clamp(0, 255).byte())
    return pyramid


@torch.no_grad()
def save(vae: AutoencoderKL, crops: Crops, folder: Path) -> None:
    """Save with the scaling factor that gives the latents unit variance, as diffusion models expect."""
    images = torch.stack([crops[i] for i in range(32)]).to(vae.device)
    scaling_factor = 1 / float(vae.encode(images).latent_dist.mode().std())
    vae.register_to_config(scaling_factor=round(scaling_factor, 5))
    vae.save_pretrained(folder)


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


def main(
    output_dir: Annotated[Path, option("output_dir", "where the VAE is saved, diffusers layout")],
    widths: Annotated[str, option("widths", "block_out_channels")] = "32,64,64",
    max_train_steps: Annotated[int, option("max_train_steps", "optimiser steps")] = 6000,
    train_batch_size: Annotated[int, option("train_batch_size", "crops a step")] = 8,
    resolution: Annotated[int, option("resolution", "side of the crops in pixels")] = 96,
    leaves: Annotated[int, option("leaves", "how many dead-leaves images")] = 1500,
    learning_rate: Annotated[float, option("learning_rate", "its peak")] = 1e-3,
    lr_warmup_steps: Annotated[int, option("lr_warmup_steps", "linear warm-up")] = 100,
    kl_weight: Annotated[float, option("kl_weight", "per latent element")] = 1e-5,
    checkpointing_steps: Annotated[int, option("checkpointing_steps", "save every so often")] = 500,
    mixed_precision: Annotated[str, option("mixed_precision", "no, bf16 or fp16")] = "no",
    seed: Annotated[int, option("seed", "of weights, images and crops")] = 0,
) -> None:
    accelerator = Accelerator(mixed_precision=mixed_precision)
    set_seed(seed)
    channels = tuple(int(width) for width in widths.split(","))
    blocks = len(channels)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=256,
    ).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=learning_rate, betas=(0.9, 0.99))
    scheduler = get_scheduler(
        "cosine",
        optimizer,
        num_warmup_steps=lr_warmup_steps,
        num_training_steps=max_train_steps,
    )

    drawn = [image.add(1).mul(127.5).round().byte() for image in DeadLeaves(leaves, 256, seed)]
    photos = photographs(resolution)
    # Photographs make up two fifths of the crops, whatever their number.
    repeats = max(1, round(len(drawn) * 2 / 3 / len(photos)))
    crops = Crops(drawn + photos * repeats, max_train_steps * train_batch_size, resolution, seed)
    vae, optimizer, scheduler = accelerator.prepare(vae, optimizer, scheduler)
    ema = EMAModel(vae.parameters(), decay=0.998, use_ema_warmup=True, power=0.75)
    accelerator.register_for_checkpointing(ema)

    checkpoint = output_dir / "checkpoint"
    start = 0
    if checkpoint.is_dir():
        accelerator.load_state(checkpoint)
        start = int((checkpoint / "step.txt").read_text())
    rest = torch.utils.data.Subset(crops, range(start * train_batch_size, len(crops)))
    loader = DataLoader(rest, train_batch_size, num_workers=1)
    began, running = time.time(), 0.0
    for step, images in enumerate(loader, start + 1):
        images = images.to(accelerator.device, memory_format=torch.channels_last)
        with accelerator.autocast():
            posterior = vae.encode(images).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        reconstruction = torch.nn.functional.mse_loss(decoded.float(), images)
        # Per latent element, so that the weight does not depend on the crop's size.
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = reconstruction + kl_weight * kl
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        ema.step(vae.parameters())
        running += reconstruction.item() / 50
        if step % 50 == 0:
            psnr = -10 * math.log10(running / 4)
            print(f"step {step}: {psnr:.2f} dB, {time.time() - began:.0f} s", flush=True)
            running = 0.0
        if step % checkpointing_steps == 0 or step == max_train_steps:
            accelerator.save_state(checkpoint)
            (checkpoint / "step.txt").write_text(str(step))
            ema.store(vae.parameters())
            ema.copy_to(vae.parameters())
            save(accelerator.unwrap_model(vae), crops, output_dir)
            ema.restore(vae.parameters())


if __name__ == "__main__":
    typer.run(main)
