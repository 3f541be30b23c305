"""Is an equivariant latent space easier for a diffusion model? One setting that two cores can answer.

Images of 32 px with one textured shape each, drawn from a known law that no turn or flip changes, as many as
asked for. A small DiT, which sees positions and the kind of shape, learns standardised latents of five VAEs
with the same images, noise, timesteps, batches and initial weights:

- `untouched`: the embedded VAE;
- `scrambled`: the same, with every cell's channels turned by an orthogonal matrix of its own. Decoding turns
  them back, so that nothing differs but equivariance. It shows whether this setting notices anything;
- `reconstruction`: fine-tuned for nothing but reconstruction, as many steps as the next: the fair control;
- `fine-tuned`: for EQ-VAE's draw (quarter turns and sizes) with this library's recipe;
- `symmetrized`: under c2.

Measured is how well the samples, decoded, agree with the same VAE's decodes of images that were not trained
on: the Fréchet distance with features that need no download (`features`). So a VAE is not asked how well it
reconstructs, but how well its latents can be learned.

What counts was written down before any diffusion model had seen latents of the three lower VAEs. A pilot on
other images and seeds compared untouched and scrambled alone, and set size, steps and learning rate:
distances of 9 to 11 against 15 after 600 steps, with a spread of about 10 % between seeds.

- The number is `log(distance / distance of the reference)` at the last step, paired by seed, over six seeds;
  its 95 % interval is Student's t.
- The setting answers at all if scrambled is worse than untouched: the interval lies above 0.
- An equivariant latent space *is easier* if the interval of fine-tuned against reconstruction lies below 0
  and its mean below log 0.95, and against untouched the interval lies below 0 too; *harder* with the signs
  turned. Otherwise there is *no difference larger than noise*, and the interval says how large one could be.
- Symmetrized against untouched is judged by its own interval in the same way and is secondary, as is the
  distance to the images themselves, which counts reconstruction too. Losses are reported and decide nothing:
  those of different latents do not compare.

One fine-tune of each kind is measured, so the answer is one about these VAEs, these images and this size.

    python benchmarks/diffusability.py    # goes on where it was stopped; no data is needed
"""

from __future__ import annotations

import copy
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import scipy.stats
import torch
import torch.nn.functional as F
import typer
from diffusers import DiTTransformer2DModel
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor, nn

import equivae
import record
from downstream import (
    decode,
    denoising_loss,
    distance,
    encode,
    psnr_of,
    random_features,
    sample,
    statistics_of,
)
from equivae.demo import PLAIN, training_images
from equivae.evaluation.features import Backbone

SIZE, KINDS, CHUNK = 32, 3, 128
KEPT = Path(__file__).parents[1] / "build" / "diffusability"
PAIRS = (
    ("scrambled", "untouched"),
    ("fine-tuned", "reconstruction"),
    ("fine-tuned", "untouched"),
    ("symmetrized", "untouched"),
)


@dataclass(frozen=True)
class Budget:
    """What every diffusion model gets.

    Attributes:
        steps: of training.
        batch_size: latents in a step.
        learning_rate: of AdamW at the start, falling to 0 in a line; samples come from the averaged weights.
        samples: drawn at the end.
        inference_steps: of DDIM.
    """

    steps: int = 600
    batch_size: int = 32
    learning_rate: float = 1e-3
    samples: int = 1024
    inference_steps: int = 12


def shapes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images `(count, 3, SIZE, SIZE)` in [-1, 1] and their kinds: disc, bar or striped disc.

    Place, angle, size and colours are drawn; every turn and flip of an image is as likely as the image.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    kinds = torch.randint(KINDS, (count,), generator=generator)
    grid = torch.linspace(-1, 1, SIZE)
    centre, angle = uniform(-0.45, 0.45, 2, 1, 1), uniform(0, 2 * math.pi, 1, 1)
    y, x = grid.view(1, -1, 1) - centre[:, 0], grid.view(1, 1, -1) - centre[:, 1]
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    radius = uniform(0.3, 0.55, 1, 1)
    disc = radius - (along.square() + across.square()).sqrt()
    bar = torch.minimum(1.4 * radius - along.abs(), 0.4 * radius - across.abs())
    edge = 2 / SIZE  # one pixel
    cover = torch.where((kinds == 1).view(-1, 1, 1), bar, disc).div(edge).add(0.5).clamp(0, 1)
    stripes = torch.sin(along * uniform(14, 22, 1, 1)).mul(2).add(0.5).clamp(0, 1)
    mix = torch.where((kinds == 2).view(-1, 1, 1), stripes, torch.ones(()))
    ramp = (x * (2 * angle).sin() + y * (2 * angle).cos()).mul(0.3)
    first, second, ground = (uniform(-0.9, 0.9, 3, 1, 1) for _ in range(3))
    inside = first * mix[:, None] + second * (1 - mix[:, None])
    ground = ground + ramp[:, None]
    image = inside * cover[:, None] + ground * (1 - cover[:, None])
    return image.clamp(-1, 1), kinds


def features(reference: Tensor) -> Backbone:
    """`(B, 3, SIZE, SIZE)` in [-1, 1] to `(B, 96)`: responses of random filters and the image at 4x4 pixels.

    The filters say what the texture is like (`downstream.random_features`), the small image where things are.
    Each number is scaled by its mean and standard deviation over the reference images.
    """
    texture = random_features(reference)
    small = F.adaptive_avg_pool2d(reference, 4).flatten(1)
    mean, std = small.mean(0), small.std(0).clamp_min(1e-6)

    def both(images: Tensor) -> Tensor:
        layout = (F.adaptive_avg_pool2d(images, 4).flatten(1) - mean) / std
        return torch.cat([texture(images), layout], dim=1)

    return both


class Scrambled(nn.Module):
    """A VAE whose latent cells are each turned by an orthogonal matrix of their own; decoding undoes it."""

    def __init__(self, vae: nn.Module, size: int, seed: int = 0) -> None:
        super().__init__()
        self.view = equivae.Autoencoder(vae)
        generator = torch.Generator().manual_seed(seed)
        channels = self.view.encode(torch.zeros(1, 3, SIZE, SIZE)).shape[1]
        drawn = torch.randn(size, size, channels, channels, generator=generator)
        self.turns = nn.Buffer(torch.linalg.qr(drawn).Q)

    def encode(self, images: Tensor) -> Tensor:
        return torch.einsum("hwij,bjhw->bihw", self.turns, self.view.encode(images))

    def decode(self, latents: Tensor) -> Tensor:
        return self.view.decode(torch.einsum("hwji,bjhw->bihw", self.turns, latents))


def vaes(folder: Path, finetune_steps: int) -> dict[str, nn.Module]:
    """The five; what is fine-tuned already lies in the folder and is read from there."""
    base = equivae.zoo.load()
    images = training_images(0)
    options: dict[str, Any] = {**PLAIN, "max_train_steps": finetune_steps, "progress": False}
    found: dict[str, nn.Module] = {"untouched": base, "scrambled": Scrambled(base, SIZE // 4)}
    for name, transforms in (("reconstruction", "identity"), ("fine-tuned", "eqvae")):
        if not (folder / name / "config.json").is_file():
            equivae.finetune(
                copy.deepcopy(base), images, transforms, output_dir=folder / name, **options
            )
        found[name] = equivae.load_vae(str(folder / name))
    found["symmetrized"] = equivae.symmetrize(
        copy.deepcopy(base), "c2", images=images, max_samples=64, progress=False
    )
    return {name: vae.eval() for name, vae in found.items()}


def denoiser(channels: int, size: int, seed: int) -> DiTTransformer2DModel:
    """A DiT with patches of 2x2 cells; the same weights for the same seed."""
    torch.manual_seed(seed)
    return DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=24,
        in_channels=channels,
        out_channels=channels,
        num_layers=3,
        sample_size=size,
        patch_size=2,
        num_embeds_ada_norm=KINDS,
        norm_num_groups=8,
    )


@dataclass
class Space:
    """A VAE's standardised latents of the images, and what its own decodes look like."""

    view: equivae.Autoencoder
    train: Tensor
    held_out: Tensor
    mean: Tensor
    std: Tensor
    decoded: Tensor
    numbers: dict[str, float]

    def images(self, latents: Tensor) -> Tensor:
        return decode(self.view, latents * self.std + self.mean)


def space(vae: nn.Module, train: Tensor, held_out: Tensor) -> Space:
    """Encode the images; reconstruction and round trips on the first of those held out."""
    view = equivae.Autoencoder(vae)
    latents, others = encode(view, train), encode(view, held_out)
    mean, std = statistics_of(latents)
    decoded = decode(view, others)
    few = slice(0, CHUNK)
    numbers = {"reconstruction_psnr": psnr_of(decoded[few], held_out[few])}
    for name in ("rot180", "rot90"):
        one = equivae.get_transform(name)
        turned = decode(view, one.latent(others[few]))
        numbers[f"{name}_psnr"] = psnr_of(turned, one.pixel(held_out[few]))
    return Space(view, (latents - mean) / std, (others - mean) / std, mean, std, decoded, numbers)


def train(
    made: Space, kinds: Tensor, held_out_kinds: Tensor, budget: Budget, seed: int
) -> tuple[float, Tensor]:
    """A diffusion model on standardised latents: its loss on latents held out, and decoded samples."""
    generator = torch.Generator().manual_seed(seed)
    model = denoiser(made.train.shape[1], made.train.shape[-1], seed).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=budget.learning_rate)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / budget.steps)
    averaged = EMAModel(model.parameters(), decay=0.99)
    for _ in range(budget.steps):
        chosen = torch.randint(len(made.train), (budget.batch_size,), generator=generator)
        wanted = {"class_labels": kinds[chosen]}
        denoising_loss(model, made.train[chosen], generator, **wanted).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        falling.step()
        optimizer.zero_grad()
        averaged.step(model.parameters())
    averaged.copy_to(model.parameters())
    model.eval()
    with torch.no_grad():
        fixed = torch.Generator().manual_seed(1)
        held_out = denoising_loss(model, made.held_out, fixed, class_labels=held_out_kinds)
    asked = held_out_kinds[: budget.samples]
    shape = (len(asked), *made.train.shape[1:])
    drawn = sample(model, shape, budget.inference_steps, CHUNK, class_labels=asked)
    return float(held_out), made.images(drawn)


def compare(
    models: Mapping[str, nn.Module],
    budget: Budget,
    seeds: Sequence[int],
    known: Mapping[str, Any],
    training_count: int = 2048,
    pictures: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Train a diffusion model on each VAE's latents for every seed; all results so far after every model.

    Runs in `known`, the results of an earlier call, are not repeated. Pictures go into a folder.
    """
    images, kinds = shapes(training_count, 0)
    others, other_kinds = shapes(budget.samples, 1)
    measure = features(images)
    setting = {
        "budget": asdict(budget),
        "training_images": len(images),
        "held_out_images": len(others),
        "parameters": sum(p.numel() for p in denoiser(4, SIZE // 4, 0).parameters()),
    }
    same = all(known.get(key) == value for key, value in setting.items())
    results: dict[str, Any] = {**setting, "vaes": dict(known["vaes"]) if same else {}}
    spaces = {name: space(vae, images, others) for name, vae in models.items()}
    for name, made in spaces.items():
        # As far as two sets of decodes lie apart that differ by chance alone.
        again = made.images(made.train[: budget.samples])
        made.numbers["floor"] = distance(measure, again, made.decoded)
        runs = results["vaes"].get(name, {}).get("runs", [])
        results["vaes"][name] = {**made.numbers, "runs": runs}
    for seed in seeds:
        for name, made in spaces.items():
            runs = results["vaes"][name]["runs"]
            if any(run["seed"] == seed for run in runs):
                continue
            began = time.process_time()
            loss, drawn = train(made, kinds, other_kinds, budget, seed)
            runs.append(
                {
                    "seed": seed,
                    "loss": loss,
                    "distance": distance(measure, drawn, made.decoded),
                    "distance_to_images": distance(measure, drawn, others),
                    "seconds": round(time.process_time() - began, 1),
                }
            )
            if pictures and seed == seeds[0]:
                row = torch.cat(list(drawn[:16]), dim=-1)
                save_image(row, pictures / f"diffusability-{name}.png")
            yield results


def judge(results: Mapping[str, Any]) -> dict[str, Any]:
    """The pairs that count, and the sentence that follows from them; see the text at the top."""
    pairs = {}
    for name, reference in PAIRS:
        runs = [
            {run["seed"]: run["distance"] for run in results["vaes"][one]["runs"]}
            for one in (name, reference)
        ]
        both = sorted(set(runs[0]) & set(runs[1]))
        values = [math.log(runs[0][seed] / runs[1][seed]) for seed in both]
        mean, half = statistics.mean(values), math.inf
        if len(values) > 1:
            spread = statistics.stdev(values) / len(values) ** 0.5
            half = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * spread
        pairs[f"{name} against {reference}"] = {
            "seeds": len(values),
            "ratio": math.exp(mean),
            "low": math.exp(mean - half),
            "high": math.exp(mean + half) if half < 700 else None,
        }
    check, fair, untouched, _ = pairs.values()
    verdict = "no difference larger than noise"
    if not check["low"] > 1:
        verdict = "the setting does not answer"
    elif _beyond(fair, 1.0) and fair["ratio"] < 0.95 and _beyond(untouched, 1.0):
        verdict = "easier"
    elif fair["low"] > 1 and fair["ratio"] > 1 / 0.95 and untouched["low"] > 1:
        verdict = "harder"
    return {"pairs": pairs, "verdict": verdict}


def _beyond(pair: Mapping[str, Any], level: float) -> bool:
    return pair["high"] is not None and pair["high"] < level


def save_image(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image.add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0)
    Image.fromarray(pixels.numpy()).save(path)


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


def main(
    steps: Annotated[int, option("steps", "of each diffusion model")] = Budget.steps,
    seeds: Annotated[int, option("seeds", "diffusion models for each VAE")] = 6,
    finetune_steps: Annotated[int, option("finetune_steps", "of both fine-tuned VAEs")] = 300,
    kept: Annotated[Path, option("vaes", "the fine-tuned VAEs are kept here")] = KEPT,
) -> None:
    torch.set_num_threads(1)
    models = vaes(kept, finetune_steps)
    path = record.RESULTS / "diffusability.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    known = known if known.get("finetune_steps") == finetune_steps else {}
    for results in compare(models, Budget(steps), range(seeds), known, pictures=kept):
        content = {"finetune_steps": finetune_steps, **results}
        if all(len(one["runs"]) > 1 for one in results["vaes"].values()):
            content |= judge(results)
            print(content["pairs"], content["verdict"], flush=True)
        record.save("diffusability", content)


if __name__ == "__main__":
    typer.run(main)
