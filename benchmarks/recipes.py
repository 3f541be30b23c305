"""The recipes side by side: same start, images, processor seconds and seed, on TAEF2 or the embedded VAE.

    python benchmarks/recipes.py --vae taef2 --seconds 20
    python benchmarks/recipes.py --vae embedded --seconds 12
    python benchmarks/recipes.py --figure

Every arm is a `finetune` of the library with the recipe's transforms, draws and losses, and what all arms
share stands above it: crops, batch, learning rate, all on one thread. Each arm says what it leaves out of the
published system: LPIPS and discriminators, which a few seconds cannot train, are left out of all, and so are
its rate, batch, crops and length. Low-rank factors get ten times the rate of whole weights. The control,
"plain", is reconstruction training for the same seconds. Seconds are the processor's, without measuring and
without what comes before the first step. Results are kept by arm; a killed run goes on.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import equivae
import record
from equivae.evaluation.metrics import MeasureOptions, measure
from equivae.losses import PerceptualLoss
from equivae.training import RECIPES, stages
from equivae.training.hooks import Clock
from equivae.training.state import RunState
from hed_vgg import load_vgg16
from sotemix_rot180 import DATA, images, load, option

RESULTS = record.RESULTS / "recipes.json"
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "recipes.png"
MEASURED = ("d4", "scale(factor=0.5)", "scale(factor=0.75)")
GANS = "LPIPS and the discriminator"

RATE = 2e-5
PLAIN: dict[str, Any] = {"weight": 0.0, "schedule": "dual"}
LORA: dict[str, Any] = {"lora_rank": 8, "learning_rate": 10 * RATE}
ARMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "plain": ("equivae", PLAIN, "all but reconstruction: the control"),
    "equivae": ("equivae", {"transforms": "d4"}, "the stage of the layers at latent resolution"),
    "lora": (
        "equivae",
        {"transforms": "d4", "train": "lora", **LORA},
        "as equivae; rank 8 in place of whole weights",
    ),
    "decoder": ("decoder", {"transforms": "d4"}, "nothing"),
    "decoder-lora": (
        "decoder",
        {"transforms": "d4", **LORA},
        "nothing; rank 8 in place of whole weights",
    ),
    "published-rot180": ("published-rot180", {}, "nothing"),
    "eq-vae": ("eq-vae", {}, f"{GANS}, KL"),
    "scale-equivariance": ("scale-equivariance", {"freeze": None}, "LPIPS, frozen last layers"),
    "spectrum-matching": ("spectrum-matching", {}, GANS),
    "ai-toolkit": ("ai-toolkit", {}, "its user's further losses"),
    "aura": ("aura", {}, f"{GANS}, the power of the latents"),
    "haku-latent": ("haku-latent", {"reconstruction": "mse"}, "LPIPS, ConvNeXt features"),
    "latent-masking": ("latent-masking", {}, f"{GANS}, KL, video"),
    "local-correlation": (
        "local-correlation",
        {"terms": {"lcr": {"weight": 0.002, "adaptive": True}}},
        f"{GANS}, KL, video",
    ),
    "af-ldm-shift": (
        "af-ldm-shift",
        {"transforms": "random_fractional_shift(cells=3)"},  # of crops of 8 cells
        "LPIPS, KL, alias-free layers",
    ),
}


class Budget(Clock):
    """Ends a run after so many processor seconds of steps."""

    seconds = 0.0

    def on_start(self, state: RunState) -> None:
        self._started = self.spent = time.process_time()
        super().on_start(state)

    def stops(self, state: RunState) -> bool:
        self.spent = time.process_time() - self._started
        Budget.last = (state.step, self.spent)
        return self.spent >= self.seconds

    last: tuple[int, float] = (0, 0.0)


def peak_mb(reset: bool = False) -> float:
    """The most memory that this process held since the last reset, where the system tells."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def numbers(vae: Any, test: torch.Tensor, perceptual: PerceptualLoss) -> dict[str, Any]:
    view, data = equivae.Autoencoder(vae), equivae.data.load_images(test)
    wanted = equivae.resolve_transforms(list(MEASURED))
    found = measure(view, data, wanted, MeasureOptions(ceiling=False, progress=False))
    with torch.no_grad():
        pairs = [(view.decode(view.encode(x[None])).clamp(-1, 1), x[None]) for x in test]
        distance = sum(float(perceptual.compare(*pair)) for pair in pairs) / len(pairs)
    named = {name: one for name, one in found.transforms.items() if "scale" not in name}
    count = len(named)
    assert found.latents is not None
    return {
        "psnr": found.reconstruction_psnr,
        "ssim": found.reconstruction_ssim,
        "perceptual": distance,
        "d4": sum(one.round_trip_psnr for one in named.values()) / count,
        "d4_gap": sum(one.equivariance_gap_db for one in named.values()) / count,
        **{
            key: value
            for factor in ("0.5", "0.75")
            for one in [found.transforms[f"scale(factor={factor})"]]
            for key, value in (
                (f"scale_{factor}", one.round_trip_psnr),
                (f"scale_{factor}_gap", one.equivariance_gap_db),
            )
        },
        "latents": dataclasses.asdict(found.latents),
    }


def arm(
    name: str, vae: Any, photos: torch.Tensor, test: torch.Tensor, shared: dict[str, Any]
) -> dict[str, Any]:
    recipe, own, without = ARMS[name]
    options = {**shared, **({"terms": {}} if RECIPES[recipe].options.get("terms") else {}), **own}
    transforms = options.pop("transforms", None)
    folder = Path(tempfile.mkdtemp())
    peak_mb(reset=True)
    try:
        result = equivae.finetune(
            vae,
            photos,
            transforms,
            folder / "out",
            recipe=recipe,
            validation_images=test[:1],
            **options,
        )
        adapter = folder / "out" / "lora" / "adapter_model.safetensors"
        size = adapter.stat().st_size if adapter.is_file() else None
        saved = sum(one.stat().st_size for one in (folder / "out").glob("*.safetensors"))
    finally:
        shutil.rmtree(folder)
    steps, seconds = Budget.last
    settings = result.report.settings
    return {
        "without": without,
        "steps": steps,
        "seconds": round(seconds, 1),
        "peak_mb": round(peak_mb()),
        "trained": settings["trained_parameters"],
        "vae_bytes": saved,
        "adapter_bytes": size,
        "vae": result.vae,
    }


def main(
    vae: Annotated[str, option("vae", "taef2 or embedded")] = "taef2",
    data: Annotated[Path, option("data", "the folder that holds taef2/, photos/, kodak/")] = DATA,
    seconds: Annotated[float, option("seconds", "processor seconds of every arm")] = 45.0,
    arms: Annotated[str, option("arms", "comma-separated; all of them by default")] = "",
    photos: Annotated[int, option("photos", "how many to train on")] = 64,
    test: Annotated[int, option("test", "Kodak images to test on")] = 6,
    resolution: Annotated[int, option("resolution", "of all images")] = 128,
    crop_size: Annotated[int, option("crop_size", "trained on")] = 64,
    seed: Annotated[int, option("seed", "of order and draws")] = 0,
    figure: Annotated[bool, typer.Option("--figure", help="only draw what is there")] = False,
) -> None:
    if figure:
        draw()
        return
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    train_set, test_set = (
        images(str(data / "photos"), resolution)[:photos],
        images(str(data / "kodak"), resolution)[:test],
    )
    model = load(vae, data).to(memory_format=torch.contiguous_format)
    perceptual = PerceptualLoss(backbone=load_vgg16(3), layers=["block1", "block2", "block3"])
    Budget.seconds = seconds
    stages.Clock = Budget  # type: ignore[misc]
    equivae.Report.figures = lambda self: {}  # type: ignore[assignment,method-assign]
    shared = {
        **{"crop_size": crop_size, "train_batch_size": 4, "gradient_accumulation_steps": 1},
        **{"learning_rate": RATE, "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 5},
        **{"seed": seed, "decay_norms_and_biases": False},
        **{
            "bottleneck_steps": 0,
            "max_train_steps": 10**6,
            "max_eval_samples": 1,
            "progress": False,
            "num_train_epochs": 1,
        },
        **{"use_ema": False, "adam_beta1": 0.9, "adam_beta2": 0.99, "adam_weight_decay": 0.0},
        **{"max_grad_norm": 1.0, "resolution": resolution, "sample_posterior": False},
        **{"checkpointing_minutes": None, "checkpointing_steps": 10**6, "logging_steps": 50},
    }
    setting = {
        **{"seconds": seconds, "photos": len(train_set), "test": len(test_set)},
        **{"resolution": resolution, "crop_size": crop_size, "seed": seed},
    }
    whole = f"python benchmarks/recipes.py --vae {vae} --seconds {seconds:g}"  # however often
    rows = _kept(vae, setting)
    for name in ["untouched", *([one for one in arms.split(",") if one] or ARMS)]:
        if name in rows:
            continue
        row: dict[str, Any] = {}
        trained = model
        if name != "untouched":
            row = arm(name, model, train_set, test_set, shared)
            trained = row.pop("vae")
        rows[name] = {**row, **numbers(trained, test_set, perceptual)}
        everything = _read()
        everything[vae] = {
            **{"setting": setting, "command": whole, "machine": record.machine()},
            **{"date": record.today(), "rows": rows},
        }
        record.save("recipes", {"models": everything})
        print(vae, name, json.dumps(rows[name]), flush=True)
    draw()


def _read() -> dict[str, Any]:
    if not RESULTS.is_file():
        return {}
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))["models"]
    return found


def _kept(vae: str, setting: dict[str, Any]) -> dict[str, Any]:
    """What an earlier call with the same setting found; of another setting, nothing."""
    found = _read().get(vae, {})
    return dict(found["rows"]) if found.get("setting") == setting else {}


def draw() -> None:
    """Reconstruction against round trip of d4 and of scaling by a half, one panel a VAE and transform."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = _read()
    shown = (("d4", "d4, mean"), ("scale_0.5", "scale 0.5"))
    figure, axes = pyplot.subplots(
        len(models), 2, figsize=(10, 4.4 * len(models)), squeeze=False, layout="constrained"
    )
    names = ["untouched", *ARMS]
    for row, (vae, found) in zip(axes, models.items(), strict=True):
        for axis, (key, title) in zip(row, shown, strict=True):
            for name, one in found["rows"].items():
                place = names.index(name)
                style = {"ms": 8, "color": f"C{place % 10}", "label": name}
                axis.plot(one["psnr"], one[key], "ox^svDP*"[place % 8], **style)
            limits = axis.axis()
            axis.axline((limits[0], limits[0]), slope=1, ls=":", color="grey", lw=1)  # no gap
            axis.axis(limits)
            axis.set_title(f"{vae}, {found['setting']['seconds']:g} s: {title}", fontsize=10)
            axis.set_xlabel("reconstruction, dB")
            axis.set_ylabel("round trip, dB")
            axis.grid(alpha=0.3)
        row[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(FIGURE, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    typer.run(main)
