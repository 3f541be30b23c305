"""`finetune`: plan, session, stages, outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from equivae.autoencoder import at_top_level
from equivae.data.sources import ImagesLike
from equivae.processes import telling_of_lost_processes
from equivae.training.outcome import FinetuneResult, conclude
from equivae.training.plan import make_plan
from equivae.training.recipes import Recipe
from equivae.training.session import Session
from equivae.training.stages import train
from equivae.training.student import make_student
from equivae.transforms.groups import TransformsLike

__all__ = ["FinetuneResult", "finetune"]


@at_top_level()
def finetune(
    vae: nn.Module | str | Path,
    images: ImagesLike,
    transforms: TransformsLike | None = None,
    output_dir: str | Path = "equivae-out",
    *,
    recipe: str | Path | Recipe | None = None,
    validation_images: ImagesLike | None = None,
    progress: bool = True,
    **options: Any,
) -> FinetuneResult:
    """Fine-tune a VAE so that a transform of the latent decodes to the same transform of the image.

    The VAE passed in stays as it is; a copy learns. It is saved with `save_pretrained` at the top of
    `output_dir`, beside its model card, `report.json`, `report.md`, the figures and the run's checkpoints,
    and loads in plain diffusers. Where the latents changed, the card says so, and the config gets the scaling
    factor that they ask for now.

    Args:
        vae: a diffusers autoencoder or any module with the same calls, or where to load one from.
        images: anything that `equivae.data.load_images` takes.
        transforms: names, groups such as `"d4"`, transforms, or a list of those; the recipe's unless given,
            or `"rot180"` where it has none.
        output_dir: a new or empty folder, or that of the run to resume.
        recipe: a named set of options, see `equivae recipes`, or a YAML file of one's own; options
            that are passed override it. `recipe.yaml` in the output folder repeats a run. By default
            `"symmetrized"` for a symmetrized VAE, `"fitted"` where every transform has a fitted latent op,
            and `"equivae"` elsewhere.
        validation_images: images for validation and for the report; without them `validation_split` of
            `images` is held out.
        progress: show progress bars.
        **options: the fields of `equivae.training.FinetuneConfig`, among them `resolution`, `train`,
            `learning_rate`, `train_batch_size`, `max_train_steps`, `mixed_precision`, `use_ema`,
            `checkpointing_steps`, `resume_from_checkpoint`, `padding_mode`, `push_to_hub` and `seed`.

    Raises `InputError` for input that cannot be used, before any work; `NonFiniteLossError`, with the
    step, when the loss stops being a number. The checkpoints up to then are kept. `UploadError` when a
    finished run cannot be uploaded.

    ```python
    import diffusers

    import equivae

    result = equivae.finetune(
        equivae.zoo.load(),
        equivae.data.dead_leaves(8, size=64),
        transforms="rot180",
        output_dir="out",
        max_train_steps=2,
        train_batch_size=2,
    )
    print(result.report.verdict)
    diffusers.AutoencoderKL.from_pretrained("out")
    ```
    """
    plan = make_plan(
        vae,
        images,
        transforms,
        output_dir,
        recipe=recipe,
        validation_images=validation_images,
        options=options,
        progress=progress,
    )
    with telling_of_lost_processes(), Session(plan) as session:
        student = make_student(plan, session)
        session.stop.check()
        state = train(plan, session, student)
        return conclude(plan, session, student, state)
