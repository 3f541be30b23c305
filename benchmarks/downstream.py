"""What an equivariant latent space is worth to a diffusion model: one trained on the latents of three VAEs.

The embedded VAE untouched, symmetrized under c2, and fine-tuned for rot180. Each gets the same crops, noise,
timesteps, batches and initial weights; latents are normalised per channel. Measured are the denoising loss
on crops of photographs that were not trained on, and the Fréchet distance of decoded samples to those crops.

    python benchmarks/downstream.py

Features are those of a random convolutional network with a fixed seed (`random_features`), since nothing is
downloaded: numbers compare within this table only. VAEs differ in what they can decode at all, so each has
a floor, the distance of its reconstructions of training crops, as many as there are samples.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

import equivae
import record
from equivae.demo import PLAIN
from equivae.evaluation.features import Backbone, FeatureSums, frechet_distance
from equivae.evaluation.metrics import psnr

DATA = record.DATA
ROT180 = equivae.get_transform("rot180")
CROP, RESOLUTION, CHUNK, SHOWN = 64, 128, 32, 10
COLOURS = {"untouched": "#57606a", "symmetrized": "#1a7f37", "fine-tuned": "#0969da"}


@dataclass(frozen=True)
class Budget:
    """What every diffusion model gets.

    Attributes:
        steps: of training.
        batch_size: latents in a step.
        learning_rate: of AdamW, constant; samples come from the averaged weights.
        points: how often loss and samples are measured: at the end, at half the steps, a quarter and so on.
        samples: drawn every time.
        inference_steps: of DDIM.
    """

    steps: int = 2000
    batch_size: int = 16
    learning_rate: float = 1e-3
    points: int = 4
    samples: int = 256
    inference_steps: int = 12

    @property
    def measured_at(self) -> list[int]:
        """Steps after which loss and samples are measured, each twice the one before."""
        return sorted({max(1, self.steps // 2**i) for i in range(self.points)})


def random_crops(photos: Tensor, per_photo: int, seed: int) -> Tensor:
    """`(N * per_photo, 3, CROP, CROP)` of photos `(N, 3, H, W)`; the first N are of N different photos."""
    generator = torch.Generator().manual_seed(seed)
    room = photos.shape[-1] - CROP + 1
    crops = []
    for _ in range(per_photo):
        corners = torch.randint(room, (len(photos), 2), generator=generator).tolist()
        for photo, (top, left) in zip(photos, corners, strict=True):
            crops.append(photo[:, top : top + CROP, left : left + CROP])
    return torch.stack(crops)


def random_features(reference: Tensor, seed: int = 0) -> Backbone:
    """A backbone without weights to download: `(B, 3, H, W)` in [-1, 1] to `(B, 48)`.

    Two random convolutions (16 filters 5x5 and 32 filters 3x3, stride 2, ReLU), the mean over the image of
    each filter's response, each scaled by its mean and standard deviation over the reference images.
    """
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(16, 3, 5, 5, generator=generator) / (3 * 25) ** 0.5
    second = torch.randn(32, 16, 3, 3, generator=generator) / (16 * 9) ** 0.5

    def responses(images: Tensor) -> Tensor:
        low = F.relu(F.conv2d(images, first, stride=2))
        high = F.relu(F.conv2d(low, second, stride=2))
        return torch.cat([low.mean((-2, -1)), high.mean((-2, -1))], dim=1)

    known = responses(reference)
    mean, std = known.mean(0), known.std(0).clamp_min(1e-6)
    return lambda images: (responses(images) - mean) / std


def distance(features: Backbone, images: Tensor, others: Tensor) -> float:
    """Fréchet distance between the features of two sets of images."""
    sums = (FeatureSums(), FeatureSums())
    for one, values in zip(sums, (images, others), strict=True):
        one.add(features(values))
    return frechet_distance(*sums)


@torch.no_grad()
def encode(view: equivae.Autoencoder, images: Tensor) -> Tensor:
    return torch.cat([view.encode(part) for part in images.split(CHUNK)])


@torch.no_grad()
def decode(view: equivae.Autoencoder, latents: Tensor) -> Tensor:
    return view.decode(latents, chunk_size=CHUNK).clamp(-1, 1)


def unet(channels: int, size: int, seed: int) -> UNet2DModel:
    """A UNet of 0.7 million parameters; the same weights for the same seed."""
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=16,
    )


def scheduler() -> DDPMScheduler:
    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False
    )


def denoising_loss(
    model: nn.Module, latents: Tensor, generator: torch.Generator, **asked: Tensor
) -> Tensor:
    """Mean squared error of the predicted velocity, at random timesteps; `asked` goes to the model."""
    noise = torch.randn(latents.shape, generator=generator)
    noisy_as = scheduler()
    steps = noisy_as.config.num_train_timesteps
    timesteps = torch.randint(steps, (len(latents),), generator=generator)
    noisy = noisy_as.add_noise(latents, noise, timesteps)
    target = noisy_as.get_velocity(latents, noise, timesteps)
    return F.mse_loss(model(noisy, timesteps, **asked).sample, target)


@torch.no_grad()
def validation_loss(model: UNet2DModel, latents: Tensor) -> float:
    """The denoising loss with the same noise and timesteps every time."""
    generator = torch.Generator().manual_seed(1)
    parts = latents.split(CHUNK)
    losses = [float(denoising_loss(model, part, generator)) * len(part) for part in parts]
    return sum(losses) / len(latents)


@torch.no_grad()
def sample(
    model: nn.Module,
    shape: Sequence[int],
    inference_steps: int,
    chunk: int = CHUNK,
    **asked: Tensor,
) -> Tensor:
    """Latents `shape` by DDIM, from the same noise every time; `asked` goes to the model, row by row."""
    ddim = DDIMScheduler.from_config(scheduler().config, timestep_spacing="trailing")
    ddim.set_timesteps(inference_steps)
    generator = torch.Generator().manual_seed(2)
    found = []
    for i, latents in enumerate(torch.randn(*shape, generator=generator).split(chunk)):
        words = {name: values.split(chunk)[i] for name, values in asked.items()}
        for timestep in ddim.timesteps:
            predicted = model(latents, timestep.expand(len(latents)), **words).sample
            latents = ddim.step(predicted, timestep, latents).prev_sample
        found.append(latents)
    return torch.cat(found)


def train(
    latents: Tensor, validation: Tensor, budget: Budget, seed: int
) -> tuple[dict[int, float], dict[int, Tensor]]:
    """A diffusion model on normalised latents: validation loss and samples by steps."""
    generator = torch.Generator().manual_seed(seed)
    model = unet(latents.shape[1], latents.shape[-1], seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=budget.learning_rate)
    averaged = EMAModel(model.parameters(), decay=0.98)
    losses: dict[int, float] = {}
    samples: dict[int, Tensor] = {}
    for step in range(1, budget.steps + 1):
        chosen = torch.randint(len(latents), (budget.batch_size,), generator=generator)
        denoising_loss(model, latents[chosen], generator).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        averaged.step(model.parameters())
        if step not in budget.measured_at:
            continue
        averaged.store(model.parameters())
        averaged.copy_to(model.parameters())
        losses[step] = validation_loss(model, validation)
        samples[step] = sample(model, (budget.samples, *latents.shape[1:]), budget.inference_steps)
        averaged.restore(model.parameters())
    return losses, samples


@dataclass
class Space:
    """A VAE's latents of the crops, normalised by the training set, and what the VAE itself can do."""

    view: equivae.Autoencoder
    train: Tensor
    validation: Tensor
    mean: Tensor
    std: Tensor
    numbers: dict[str, float]

    def images(self, normalised: Tensor) -> Tensor:
        return decode(self.view, normalised * self.std + self.mean)


def space(
    vae: nn.Module, train_crops: Tensor, held_out: Tensor, features: Backbone, count: int
) -> Space:
    """Encode the crops, and measure reconstruction, round trip and the floor of the distance."""
    view = equivae.Autoencoder(vae)
    latents, validation = encode(view, train_crops), encode(view, held_out)
    mean, std = statistics_of(latents)
    turned = decode(view, ROT180.latent(validation))
    numbers = {
        "reconstruction_psnr": psnr_of(decode(view, validation), held_out),
        "round_trip_psnr": psnr_of(turned, ROT180.pixel(held_out)),
        "floor": distance(features, decode(view, latents[:count]), held_out),
    }
    return Space(view, (latents - mean) / std, (validation - mean) / std, mean, std, numbers)


def statistics_of(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel, `(1, c, 1, 1)`."""
    return latents.mean((0, 2, 3), keepdim=True), latents.std((0, 2, 3), keepdim=True)


def psnr_of(images: Tensor, targets: Tensor) -> float:
    """In dB; a peak of 1 for images in [-1, 1], as the library counts it."""
    return psnr(float((images - targets).square().mean()) / 4)


def vaes(photos: Tensor, finetune_steps: int, output_dir: Path) -> dict[str, nn.Module]:
    """The three, the latter two made from crops of the training photographs."""
    images = random_crops(photos, 2, seed=3)
    options: dict[str, Any] = {**PLAIN, "max_train_steps": finetune_steps}
    finetuned = equivae.finetune(
        equivae.zoo.load(),
        images,
        transforms="rot180",
        output_dir=output_dir,
        validation_images=images[:16],
        progress=False,
        **options,
    )
    return {
        "untouched": equivae.zoo.load(),
        "symmetrized": equivae.symmetrize(
            equivae.zoo.load(), "c2", images=images, max_samples=64, progress=False
        ),
        "fine-tuned": finetuned.vae,
    }


def compare(
    models: Mapping[str, nn.Module],
    photos: Tensor,
    held_out_photos: Tensor,
    budget: Budget,
    seeds: int = 1,
    crops_per_photo: int = 6,
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Train a diffusion model on each VAE's latents, for every seed.

    After every seed gives the results up to there, and by the VAE's name the first decoded samples of
    the first seed in [-1, 1].
    """
    crops = random_crops(photos, crops_per_photo, seed=4)
    held_out = random_crops(held_out_photos, crops_per_photo, seed=5)
    features = random_features(crops)
    pictures: dict[str, Tensor] = {}
    results: dict[str, Any] = {
        "budget": asdict(budget),
        "training_crops": len(crops),
        "held_out_crops": len(held_out),
        "parameters": sum(p.numel() for p in unet(4, 16, 0).parameters()),
        "real_distance": distance(features, crops[: budget.samples], held_out),
        "vaes": {},
    }
    spaces = {
        name: space(vae.eval(), crops, held_out, features, budget.samples)
        for name, vae in models.items()
    }
    for name, made in spaces.items():
        results["vaes"][name] = {**made.numbers, "runs": []}
        print(name, made.numbers, flush=True)
    for seed in range(seeds):
        for name, made in spaces.items():
            began = time.process_time()
            losses, samples = train(made.train, made.validation, budget, seed)
            images = {step: made.images(latents) for step, latents in samples.items()}
            distances = {step: distance(features, shot, held_out) for step, shot in images.items()}
            pictures.setdefault(name, images[budget.steps][:SHOWN])
            run = {
                "seed": seed,
                "validation_loss": losses,
                "distance": distances,
                "seconds": round(time.process_time() - began, 1),
            }
            results["vaes"][name]["runs"].append(run)
            print(name, run, flush=True)
        yield results, pictures


def draw(results: dict[str, Any], pictures: Mapping[str, Tensor], path: Path) -> None:
    """Loss and distance against steps, mean and range over the seeds, and samples below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(11, 8.2), dpi=110, facecolor="white", layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.1, 1))
    loss_axis, distance_axis = above.subplots(1, 2)
    for name, one in results["vaes"].items():
        for axis, key in ((loss_axis, "validation_loss"), (distance_axis, "distance")):
            runs = torch.tensor([list(run[key].values()) for run in one["runs"]])
            steps = [int(step) for step in one["runs"][0][key]]
            axis.plot(steps, runs.mean(0), "o-", color=COLOURS[name], ms=4, lw=1.6, label=name)
            axis.fill_between(
                steps, runs.amin(0), runs.amax(0), color=COLOURS[name], alpha=0.15, lw=0
            )
        distance_axis.axhline(one["floor"], color=COLOURS[name], lw=1, ls="--")
    loss_axis.set_ylabel("validation loss, normalised latents")
    distance_axis.set_ylabel("Fréchet distance of samples, random features")
    distance_axis.set_ylim(bottom=0)
    distance_axis.set_title("dashed: the VAE's own reconstructions", fontsize=9, color="#57606a")
    for axis in (loss_axis, distance_axis):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_xlabel("training steps")
        axis.grid(True, color="#eaeef2", lw=0.7)
        axis.spines[["top", "right"]].set_visible(False)
    loss_axis.legend(frameon=False)
    for axis, (name, images) in zip(
        below.subplots(len(pictures), 1, squeeze=False)[:, 0], pictures.items(), strict=True
    ):
        row = torch.cat(list(images), dim=-1).add(1).div(2).clamp(0, 1)
        axis.imshow(row.permute(1, 2, 0).numpy())
        axis.set_ylabel(name, color=COLOURS[name])
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    figure.savefig(path)


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


def main(
    data: Annotated[Path, option("data", "the folder that holds photos/")] = DATA,
    steps: Annotated[int, option("steps", "of each diffusion model")] = Budget.steps,
    seeds: Annotated[int, option("seeds", "diffusion models for each VAE")] = 3,
    finetune_steps: Annotated[int, option("finetune_steps", "of the fine-tuned VAE")] = 400,
    samples: Annotated[int, option("samples", "drawn at every measurement")] = 256,
) -> None:
    torch.set_num_threads(1)
    dataset = equivae.data.load_images(data / "photos", resolution=RESOLUTION)
    photos = torch.stack([dataset[i] for i in range(len(dataset))])
    held_out = len(photos) // 5
    with tempfile.TemporaryDirectory() as folder:
        models = vaes(photos[held_out:], finetune_steps, Path(folder) / "finetuned")
    budget = Budget(steps, samples=samples)
    for results, pictures in compare(models, photos[held_out:], photos[:held_out], budget, seeds):
        content = {"crop_size": CROP, "finetune_steps": finetune_steps, **results}
        print(record.save("downstream", content), flush=True)
        draw(results, pictures, record.RESULTS / "downstream.png")


if __name__ == "__main__":
    typer.run(main)
