"""Train a diffusion model on cached latents that are flipped on the fly, and measure what the flip is worth.

    python examples/cached_latents.py
    python examples/cached_latents.py --pretrained_model_name_or_path my-vae --data_dir my/images

A trainer that caches latents either caches every flipped copy or flips the cached latent, which is not the
latent of the flipped image. Here the latents of all images are cached once, and every step of a small
diffusion model flips half of its batch by one of three ways:

- `plain`: the latent's grid is flipped (right for a VAE that was fine-tuned for it; a stock VAE is off)
- `fitted`: the flip and then a small convolution, fitted in seconds on the very images that are cached
- `symmetrized`: the VAE is made exactly equivariant before anything is cached, and the grid is flipped

Each is compared with the truth, the encoded flipped image: `latent error` is `‖ρ E(x) - E(T x)‖ / ‖E(T x)‖`,
`decoded PSNR` that of `D(ρ E(x))` against `T x`, beside that of `D(E(T x))`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import torch
import torch.nn.functional as F
import typer
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import equivae
from equivae.evaluation.metrics import psnr


@dataclass
class Way:
    """One way to flip cached latents: the VAE that made them, and the transform."""

    vae: nn.Module
    transform: equivae.Transform


# The cache and the loop ---------------------------------------------------------------------------


@torch.no_grad()
def cache(vae: nn.Module, images: Tensor, batch_size: int = 4) -> Tensor:
    """The latents of all images, in the range that diffusion models are trained in."""
    view = equivae.Autoencoder(vae)
    return torch.cat([equivae.scale_latents(view.encode(x), vae) for x in images.split(batch_size)])


def augmented(latents: Tensor, way: Way, batch_size: int, seed: int = 0) -> Iterator[Tensor]:
    """Batches of the cache for ever, each sample flipped with probability one half."""
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(
        TensorDataset(latents), batch_size, shuffle=True, drop_last=True, generator=generator
    )
    while True:
        for (batch,) in loader:
            flip = torch.rand(len(batch), generator=generator) < 0.5
            with torch.no_grad():
                flipped = equivae.transform_latents(batch, way.transform, way.vae)
            yield torch.where(flip.view(-1, 1, 1, 1), flipped, batch)


def train(latents: Tensor, way: Way, steps: int, batch_size: int = 4) -> list[float]:
    """A small unconditional diffusion model; the losses of its steps."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        in_channels=latents.shape[1],
        out_channels=latents.shape[1],
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
    )
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-4)
    scheduler = DDPMScheduler()
    losses = []
    batches = augmented(latents, way, min(batch_size, len(latents)))
    for _ in range(steps):
        clean = next(batches)
        noise = torch.randn_like(clean)
        timesteps = torch.randint(len(scheduler.timesteps), (len(clean),))
        predicted = unet(scheduler.add_noise(clean, noise, timesteps), timesteps).sample
        loss = F.mse_loss(predicted, noise)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


# What the flip is worth -----------------------------------------------------------------------------


def ways(vae: nn.Module, transform: str, images: Tensor) -> dict[str, Way]:
    """The three ways; two of them are prepared on the images that are cached."""
    plain = equivae.get_transform(transform)
    fitted = equivae.fit_latent_op(vae, transform, images, progress=False)
    symmetrized = equivae.symmetrize(vae, transform, images=images, progress=False)
    return {
        "plain": Way(vae, plain),
        "fitted": Way(vae, fitted),
        "symmetrized": Way(symmetrized, plain),
    }


@torch.no_grad()
def compare(way: Way, images: Tensor) -> dict[str, float]:
    """Flipped cached latents against the latents of flipped images, and how much faster they come."""
    view = equivae.Autoencoder(way.vae)
    equivae.transform_latents(
        view.encode(images[:1]), way.transform, way.vae
    )  # looks at the VAE, once
    errors, powers, decoded, reencoded = [], [], [], []
    flipping = encoding = 0.0
    for x in images.split(4):
        latents = equivae.scale_latents(view.encode(x), way.vae)
        target = way.transform.pixel(x)
        began = time.process_time()
        moved = equivae.transform_latents(latents, way.transform, way.vae)
        flipping += time.process_time() - began
        began = time.process_time()
        truth = equivae.scale_latents(view.encode(target), way.vae)
        encoding += time.process_time() - began
        errors.append((moved - truth).square().flatten(1).sum(1))
        powers.append(truth.square().flatten(1).sum(1))
        for latent, found in ((moved, decoded), (truth, reencoded)):
            image = view.decode(equivae.unscale_latents(latent, way.vae)).clamp(-1, 1)
            found.append((image - target).div(2).square().mean((1, 2, 3)))
    return {
        "latent_error": float((torch.cat(errors) / torch.cat(powers)).sqrt().mean()),
        "decoded_psnr": psnr(float(torch.cat(decoded).mean())),
        "reencoded_psnr": psnr(float(torch.cat(reencoded).mean())),
        "times_faster_than_encoding": encoding / max(flipping, 1e-9),
    }


# The whole of it ------------------------------------------------------------------------------------


def run(
    vae: nn.Module, images: Tensor, test: Tensor, transform: str, steps: int
) -> list[dict[str, Any]]:
    """Prepare, compare on other images, and train with each way."""
    rows = []
    for name, way in ways(vae, transform, images).items():
        latents = cache(way.vae, images)
        row: dict[str, Any] = {"way": name, **compare(way, test)}
        if steps:
            losses = train(latents, way, steps)
            tenth = max(1, steps // 10)
            row["first_loss"] = sum(losses[:tenth]) / tenth
            row["last_loss"] = sum(losses[-tenth:]) / tenth
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    print(f"{'':12} latent error  decoded  (re-encoded)  faster  diffusion loss")
    for row in rows:
        losses = f"{row['first_loss']:.3f} -> {row['last_loss']:.3f}" if "last_loss" in row else ""
        print(
            f"{row['way']:12} {row['latent_error']:12.4f}  {row['decoded_psnr']:4.1f} dB"
            f"     {row['reencoded_psnr']:4.1f} dB  {row['times_faster_than_encoding']:5.0f}x  {losses}"
        )


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


def main(
    model: Annotated[
        str, option("pretrained_model_name_or_path", "anything that load_vae takes")
    ] = "embedded",
    data_dir: Annotated[
        Optional[Path], option("data_dir", "images to cache; procedural ones without")
    ] = None,
    transform: Annotated[str, option("transform", "hflip, vflip or c2's rot180")] = "hflip",
    resolution: Annotated[int, option("resolution", "side of the images")] = 64,
    max_samples: Annotated[int, option("max_samples", "images to cache")] = 64,
    max_train_steps: Annotated[int, option("max_train_steps", "of the diffusion model")] = 40,
) -> None:
    vae = equivae.load_vae(model)
    if data_dir is None:
        images = equivae.data.dead_leaves(max_samples, size=resolution, seed=1)
        test = equivae.zoo.photographs(resolution)
    else:
        found = equivae.data.load_images(data_dir, resolution=resolution, max_samples=max_samples)
        training, held_out = found.split(0.2, seed=0)
        images, test = (torch.stack([d[i] for i in range(len(d))]) for d in (training, held_out))
    show(run(vae, images, test, transform, max_train_steps))


if __name__ == "__main__":
    typer.run(main)
