"""The 180° experiment as a benchmark: the published loop, the field's objectives, and this library's ways.

From the same start and the same photographs every arm trains for a time and is measured on images it never
saw: the round trip under rot180 and the reconstruction, against processor seconds and against images seen.

    python benchmarks/sotemix_rot180.py --vae taef2 --seconds 240 --published_seconds 720
    python benchmarks/sotemix_rot180.py --vae embedded --seconds 120 --published_seconds 240
    python benchmarks/sotemix_rot180.py --vae Disty0/SoteMix --photos my/images --test my/others

Arms that the result file holds already are kept, so that one can be run again with `--arms`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

import equivae
import record
from comparison import draw, table
from curves import Arm, Setting, fresh, round_trip, run
from equivae.operators import operators_of
from equivae.training import BottleneckOptions, train_bottleneck
from equivae.training.config import RECIPES, FinetuneConfig
from taef2 import load_taef2

DATA = record.DATA
ROT180 = equivae.get_transform("rot180")


def published(vae: nn.Module, learning_rate: float = 5e-5) -> Arm:
    """The published loop: encode once, decode the latent and the turned latent, all weights, AdamW."""
    view = equivae.Autoencoder(vae)

    def objective(images: Tensor, generator: torch.Generator) -> Tensor:
        latents = view.encode(images)
        reconstruction = view.decode(latents)
        turned = view.decode(latents.flip(-2, -1))
        return F.mse_loss(reconstruction, images) + F.mse_loss(turned, images.flip(-2, -1))

    return Arm(
        f"published loop, learning rate {learning_rate:g}",
        vae,
        ROT180,
        objective,
        list(vae.parameters()),
        learning_rate,
        batch_size=3,
        betas=(0.9, 0.999),
        weight_decay=0.01,
        cosine=False,
        clip=0.0,
    )


def eq_vae(vae: nn.Module) -> Arm:
    """EQ-VAE's objective for rot180: with probability 0.5 a sample is turned; one decode, L1.

    Adam (0.5, 0.9). Without its perceptual and adversarial terms, which need other weights, and at the rate
    of the other arms: its own, 4.5e-6, is meant for days.
    """
    view = equivae.Autoencoder(vae)

    def objective(images: Tensor, generator: torch.Generator) -> Tensor:
        turned = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        latents = view.encode(images)
        decoded = view.decode(torch.where(turned, latents.flip(-2, -1), latents))
        return F.l1_loss(decoded, torch.where(turned, images.flip(-2, -1), images))

    return Arm(
        "EQ-VAE's objective", vae, ROT180, objective, list(vae.parameters()), 3e-4, betas=(0.5, 0.9)
    )


def haku_latent(vae: nn.Module) -> Arm:
    """HakuLatent's: with probability 0.5 the whole batch is turned, one decode; MSE, no perceptual terms."""
    view = equivae.Autoencoder(vae)

    def objective(images: Tensor, generator: torch.Generator) -> Tensor:
        latents = view.encode(images)
        if torch.rand((), generator=generator) < 0.5:
            latents, images = latents.flip(-2, -1), images.flip(-2, -1)
        return F.mse_loss(view.decode(latents), images)

    return Arm("HakuLatent's objective", vae, ROT180, objective, list(vae.parameters()), 3e-4)


def reconstruction_only(vae: nn.Module) -> Arm:
    """The control: a fine-tune as diffusers' train_autoencoderkl does it, reconstruction alone."""
    view = equivae.Autoencoder(vae)

    def objective(images: Tensor, generator: torch.Generator) -> Tensor:
        return F.mse_loss(view.decode(view.encode(images)), images)

    return Arm("reconstruction only", vae, ROT180, objective, list(vae.parameters()), 3e-4)


def plain(vae: nn.Module, setting: Setting, **options: Any) -> Arm:
    """equivae's default for the plain latent op: the layers at latent resolution first, then all."""
    config = FinetuneConfig(**{**RECIPES["equivae"].options, **options})
    began = time.process_time()
    if config.bottleneck_steps:
        early = BottleneckOptions(
            config.bottleneck_steps,
            crop_size=setting.crop_size,
            weight=config.weight,
            mixed_precision=setting.mixed_precision,  # type: ignore[arg-type]
            seed=setting.seed,
            progress=False,
        )
        photos = equivae.data.load_images(setting.photos)
        train_bottleneck(equivae.Autoencoder(vae), [ROT180], photos, early)
    spent = time.process_time() - began
    name = "bottleneck, then all weights" if config.bottleneck_steps else "all weights at once"
    arm = _by_recipe(name, vae, ROT180, "equivae", list(vae.parameters()), **options)
    arm.spent = spent
    return arm


def symmetrized(vae: nn.Module, photos: Tensor) -> Arm:
    """`symmetrize`, then a fine-tune of the decoder and the context's operators; the encoder stays."""
    began = time.process_time()
    made = equivae.symmetrize(vae, "c2", images=photos[: len(photos) // 5], progress=False)
    spent = time.process_time() - began
    weights = equivae.Autoencoder(made).decoder_parameters()
    for parameter in weights:
        parameter.requires_grad_(True)
    arm = _by_recipe("symmetrized, then decoder", made, ROT180, "symmetrized", weights)
    arm.spent = spent
    return arm


def fitted(vae: nn.Module, photos: Tensor, mixed_precision: str, **options: Any) -> Arm:
    """`fit_latent_op`, then decoder and latent op trained from there; the encoder stays as it is."""
    began = time.process_time()
    transform = equivae.fit_latent_op(
        vae, "rot180", photos[::3], mixed_precision=mixed_precision, progress=False
    )
    spent = time.process_time() - began
    config = FinetuneConfig(**RECIPES["fitted"].options)
    view = equivae.Autoencoder(vae)
    operators = [p for o in operators_of([transform]) for p in o.requires_grad_(True).parameters()]
    rate = config.operator_learning_rate or config.learning_rate
    groups = [{"params": view.decoder_parameters()}, {"params": operators, "lr": rate}]
    name = "fitted, then decoder and operator"
    if options:
        name += "".join(f", {key} {value}" for key, value in options.items())
    arm = _by_recipe(name, vae, transform, "fitted", groups, **options)
    arm.spent = spent
    return arm


def _by_recipe(
    name: str,
    vae: nn.Module,
    transform: equivae.Transform,
    recipe: str,
    parameters: Any,
    **options: Any,
) -> Arm:
    config = FinetuneConfig(**{**RECIPES[recipe].options, **options})
    view = equivae.Autoencoder(vae)
    loss = equivae.EquivarianceLoss(
        transform,
        weight=config.weight,
        schedule=config.schedule,
        probability=config.probability,
    )

    def objective(images: Tensor, generator: torch.Generator) -> Tensor:
        latents = None
        if config.train == "decoder":
            with torch.no_grad():
                latents = view.encode(images)
        return loss(view, images, latents=latents, generator=generator).loss

    return Arm(
        name,
        vae,
        transform,
        objective,
        parameters,
        config.learning_rate,
        batch_size=config.train_batch_size,
        betas=(config.adam_beta1, config.adam_beta2),
        ema_decay=config.ema_decay if config.use_ema else 0.0,
    )


def arms(setting: Setting) -> dict[str, Callable[[nn.Module], Arm]]:
    """Every arm, made from a copy of the VAE."""
    return {
        "published": published,
        "published_best": lambda vae: published(vae, 3e-4),
        "eq_vae": eq_vae,
        "haku_latent": haku_latent,
        "reconstruction": reconstruction_only,
        "plain": lambda vae: plain(vae, setting),
        "plain_whole": lambda vae: plain(vae, setting, bottleneck_steps=0),
        "fitted": lambda vae: fitted(vae, setting.photos, setting.mixed_precision),
        "fitted_weight_1": lambda vae: fitted(
            vae, setting.photos, setting.mixed_precision, weight=1.0, probability=0.5
        ),
        "symmetrized": lambda vae: symmetrized(vae, setting.photos),
    }


def compare(
    vae: nn.Module, model: str, setting: Setting, budgets: dict[str, float]
) -> dict[str, Any]:
    """Run the arms named in `budgets` for so many seconds each, and write the result after every one."""
    name = "sotemix_rot180_" + model.lower().replace("/", "_")
    path = record.RESULTS / f"{name}.json"
    results = json.loads(path.read_text()) if path.is_file() else {"arms": {}}
    # An arm that is added to a file says itself where it is from.
    head = {key: results[key] for key in ("command", "machine", "date", "commit") if key in results}
    reconstruction, turned = round_trip(vae, setting.test, ROT180)
    makers = arms(setting)
    for key, budget in budgets.items():
        arm = makers[key](fresh(vae))
        curve = run(arm, setting, budget)
        results["arms"][key] = {
            "name": arm.name,
            "budget": budget,
            "curve": [asdict(p) for p in curve],
            **({"command": record.command(), "date": record.today()} if head else {}),
        }
        record.save(
            name,
            {
                **head,
                "model": model,
                "untouched": {"reconstruction_psnr": reconstruction, "round_trip_psnr": turned},
                "training_images": len(setting.photos),
                "test_images": len(setting.test),
                "crop_size": setting.crop_size,
                "mixed_precision": setting.mixed_precision,
                "seconds_are": "processor seconds on one thread",
                "arms": results["arms"],
            },
        )
    results = json.loads(path.read_text())
    draw(results, record.RESULTS / f"{name}.png")
    return results


def images(source: str, resolution: int) -> Tensor:
    dataset = equivae.data.load_images(source, resolution=resolution)
    return torch.stack([dataset[i] for i in range(len(dataset))])


def load(name: str, data: Path) -> nn.Module:
    vae = load_taef2(data / "taef2") if name == "taef2" else equivae.load_vae(name)
    return vae.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


def main(
    vae: Annotated[str, option("vae", "taef2, embedded, or what load_vae takes")] = "taef2",
    data: Annotated[Path, option("data", "the folder that holds taef2/, photos/, kodak/")] = DATA,
    photos: Annotated[str, option("photos", "a folder to train on, instead of photos/")] = "",
    test: Annotated[str, option("test", "a folder to test on, instead of kodak/")] = "",
    resolution: Annotated[int, option("resolution", "of all images")] = 256,
    crop_size: Annotated[int, option("crop_size", "of the crops trained on")] = 128,
    seconds: Annotated[float, option("seconds", "of every arm")] = 240.0,
    published_seconds: Annotated[float, option("published_seconds", "of the published loop")] = 0.0,
    only: Annotated[str, option("arms", "comma-separated; all of them by default")] = "",
    points: Annotated[int, option("points", "measurements along a curve")] = 7,
    mixed_precision: Annotated[str, option("mixed_precision", "no or bf16, of all arms")] = "bf16",
    seed: Annotated[int, option("seed", "of batches and draws")] = 0,
) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    setting = Setting(
        images(photos or str(data / "photos"), resolution),
        images(test or str(data / "kodak"), resolution),
        crop_size,
        mixed_precision,
        points,
        seed,
    )
    wanted = only.split(",") if only else list(arms(setting))
    budgets = {
        key: published_seconds if published_seconds and key.startswith("published") else seconds
        for key in wanted
    }
    print(table(compare(load(vae, data), vae, setting, budgets)))


if __name__ == "__main__":
    typer.run(main)
