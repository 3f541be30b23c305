"""The published experiment, whole: a Stable Diffusion VAE learns 180° rotation.

1. Generate 1,000 images with `Disty0/SoteMix` (prompt "1girl", 50 steps), or take a folder of images.
2. Fine-tune its VAE so that a latent turned by 180° decodes to the image turned by 180°.
3. Check the round trip: encode, turn the latent, decode, turn the image back.
4. Draw the figures: loss per epoch, the untouched VAE's decode, the four panels; write the report.

    python examples/sotemix_rot180.py --output_dir sotemix                      # needs a network, a GPU
    python examples/sotemix_rot180.py --recipe published --output_dir sotemix   # as published
    python examples/sotemix_rot180.py --model sotemix.safetensors --images my/images --output_dir out
    python examples/sotemix_rot180.py --embedded --output_dir out               # offline, minutes on a CPU

Stopped, it goes on where it was when the same command is given again: images that are there are kept,
and the fine-tune resumes from its last checkpoint.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import torch
import typer
from PIL import Image
from tqdm.auto import tqdm

import equivae
from equivae.reporting.figures import draw_losses, draw_panels

SOTEMIX = "Disty0/SoteMix"


def load_pipeline(model: str, device: str) -> Any:
    """The text-to-image pipeline behind a hub name, a diffusers folder or a single file."""
    from diffusers import DiffusionPipeline, StableDiffusionPipeline

    dtype = torch.float16 if device == "cuda" else torch.float32
    try:
        if model.endswith(".safetensors"):
            pipeline = StableDiffusionPipeline.from_single_file(model, torch_dtype=dtype)
        else:
            pipeline = DiffusionPipeline.from_pretrained(
                model, torch_dtype=dtype, use_safetensors=True
            )
    except Exception as error:
        raise equivae.InputError(
            f"no pipeline could be loaded from {model!r} to generate images with; pass one that is here "
            "with --model, images with --images, or --embedded to run offline."
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def generate_images(
    model: str, folder: Path, count: int, prompt: str, steps: int, batch: int, seed: int
) -> None:
    """Write `count` images as PNG; image `i` depends on `seed + i`, and those that exist are kept."""
    missing = [i for i in range(count) if not (folder / f"{i:05d}.png").exists()]
    if not missing:
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = load_pipeline(model, device)
    folder.mkdir(parents=True, exist_ok=True)
    for start in tqdm(range(0, len(missing), batch), desc="generate"):
        indices = missing[start : start + batch]
        generators = [torch.Generator("cpu").manual_seed(seed + i) for i in indices]
        images = pipeline(
            [prompt] * len(indices), num_inference_steps=steps, generator=generators
        ).images
        for i, image in zip(indices, images, strict=True):
            save_image(image, folder / f"{i:05d}.png")


def draw_images(folder: Path, count: int, size: int, seed: int) -> None:
    """The offline stand-in for generated images: the procedural set."""
    folder.mkdir(parents=True, exist_ok=True)
    images = equivae.data.DeadLeaves(count, size, seed=seed + 1_000)
    for i in tqdm(range(count), desc="draw"):
        path = folder / f"{i:05d}.png"
        if not path.exists():
            pixels = images[i].add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
            save_image(Image.fromarray(pixels), path)


def save_image(image: Image.Image, path: Path) -> None:
    partial = path.with_suffix(".partial")
    image.save(partial, format="PNG")
    partial.replace(path)


def write_figures(result: equivae.FinetuneResult, folder: Path) -> None:
    """The figures of the published experiment, beside the report's own."""
    report = result.report
    draw_losses(result.history, by="epoch").savefig(folder / "loss_per_epoch.png")
    middle = len(report.panels) // 2  # from the best image to the worst
    draw_panels([report.panels_before[middle]]).savefig(folder / "untouched_vae.png")
    draw_panels([report.panels[middle]]).savefig(folder / "four_panels.png")


def option(name: str, help: str) -> Any:
    return typer.Option(f"--{name}", help=help)


def main(
    output_dir: Annotated[Path, option("output_dir", "images/ and one folder a recipe go here")],
    model: Annotated[
        str, option("model", "hub name, diffusers folder or .safetensors file")
    ] = SOTEMIX,
    images: Annotated[
        Optional[Path], option("images", "use this folder instead of generating")
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="the VAE in the wheel, procedural images, no network")
    ] = False,
    recipe: Annotated[str, option("recipe", "published, equivae, ...")] = "equivae",
    num_images: Annotated[int, option("num_images", "how many to generate")] = 1000,
    prompt: Annotated[str, option("prompt", "of the generated images")] = "1girl",
    num_inference_steps: Annotated[int, option("num_inference_steps", "of the generation")] = 50,
    generation_batch_size: Annotated[int, option("generation_batch_size", "images a call")] = 4,
    resolution: Annotated[int, option("resolution", "resize and centre-crop to this side")] = 256,
    num_train_epochs: Annotated[int, option("num_train_epochs", "as published: 5")] = 5,
    max_train_steps: Annotated[
        Optional[int], option("max_train_steps", "instead of epochs")
    ] = None,
    train_batch_size: Annotated[
        Optional[int], option("train_batch_size", "else the recipe's")
    ] = None,
    learning_rate: Annotated[Optional[float], option("learning_rate", "else the recipe's")] = None,
    mixed_precision: Annotated[str, option("mixed_precision", "no, fp16 or bf16")] = "no",
    checkpointing_steps: Annotated[int, option("checkpointing_steps", "save every so often")] = 200,
    seed: Annotated[int, option("seed", "of images, split, order and draws")] = 0,
) -> None:
    """The published 180° experiment: generate, fine-tune, check, draw."""
    vae = equivae.load_vae("embedded") if embedded else load_model_vae(model)
    if images is None:
        images = output_dir / "images"
        if embedded:
            draw_images(images, num_images, resolution, seed)
        else:
            generate_images(
                model, images, num_images, prompt, num_inference_steps, generation_batch_size, seed
            )
    given = {
        "max_train_steps": max_train_steps,
        "train_batch_size": train_batch_size,
        "learning_rate": learning_rate,
    }
    run = output_dir / recipe
    result = equivae.finetune(
        vae,
        images,
        "rot180",
        run,
        recipe=recipe,
        resolution=resolution,
        num_train_epochs=num_train_epochs,
        mixed_precision=mixed_precision,
        checkpointing_steps=checkpointing_steps,
        resume_from_checkpoint="latest",
        seed=seed,
        **{name: value for name, value in given.items() if value is not None},
    )
    write_figures(result, run)
    for label, before, after in result.report.rows():
        print(f"{label:32} {before:>12} {after:>12}")
    error = result.report.metrics.transforms["rot180"].round_trip_mse
    print(f"Round-trip MSE {error:.5f} in [0, 1] units, {4 * error:.5f} in [-1, 1] units;", end=" ")
    print("published: about 0.0023, of one image, its units not stated.")
    print(f"Written to {run}: the VAE in diffusers layout, report.md and the figures.")


def load_model_vae(model: str) -> torch.nn.Module:
    try:
        return equivae.load_vae(model)
    except equivae.InputError as error:
        raise equivae.InputError(
            f"the VAE of {model!r} could not be loaded ({error}) Pass a model that is here with --model, "
            "or --embedded to run offline."
        ) from error


if __name__ == "__main__":
    try:
        typer.run(main)
    except equivae.InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
