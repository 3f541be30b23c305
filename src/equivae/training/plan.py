"""Everything that is checked before a fine-tune begins: nothing is written, nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn

from equivae.autoencoder import (
    Autoencoder,
    check_images,
    check_resolution,
    check_transforms,
    layout_of,
)
from equivae.autoencoder.compiling import check_compiler
from equivae.autoencoder.doubt import check_scaling_is_known
from equivae.autoencoder.padding import get_padding_mode
from equivae.data.sources import ImageDataset, ImagesLike, load_images, load_stream
from equivae.data.streaming import ImageStream
from equivae.errors import EmptyMaskError, InputError
from equivae.files.fingerprint import fingerprint_of
from equivae.files.pretrained import load_vae
from equivae.files.provenance import OPERATORS
from equivae.files.writing import check_claim
from equivae.losses import EquivarianceLoss, Term
from equivae.operators import operators_of
from equivae.operators.transform import default_name
from equivae.processes import process_state
from equivae.symmetry import SymmetrizedVAE
from equivae.training.best import BEST, check_metric
from equivae.training.caching import check_cache
from equivae.training.checkpoints import (
    check_settings,
    find_checkpoint,
    list_checkpoints,
    read_images,
    read_state,
)
from equivae.training.config import (
    RECIPES,
    FinetuneConfig,
    Recipe,
    find_recipe,
    make_config,
)
from equivae.training.crops import check_crop
from equivae.training.feeding import Feed, check_shapes, feed_of
from equivae.training.learning import learning_names, lora_targets
from equivae.training.length import max_steps_of, warmup_steps_of
from equivae.training.operators import FITTED, check_operators
from equivae.training.optimisers import check_optimizer
from equivae.training.state import RunState
from equivae.training.terms import fingerprints_of_terms, plan_terms
from equivae.training.tracking import check_trackers
from equivae.transforms import Transform, resolve_transforms, split_transforms
from equivae.transforms.groups import TransformsLike

__all__ = ["Plan", "make_plan"]

WORK_DIR = ".equivae"
"""The hidden folder, in a run's output folder, of what lasts only as long as the run."""

_SPLITTING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
"""What accelerate's launcher says in the environment, and of what."""

OURS = ("logs", OPERATORS, FITTED, BEST, WORK_DIR)
"""What a run may find of its own in its output folder."""


@dataclass(frozen=True)
class Plan:
    """A fine-tune that can begin.

    Attributes:
        given: the VAE as it was passed in.
        original: the loaded VAE, which stays as it is.
        images: what the images are called in the report.
        recipe: its name.
        asked: what it says.
        config: every option.
        transforms: as they were asked for.
        training: the images to learn from.
        validation: the images held out, or the training images where none are.
        record: of all images, to find them again when the run is resumed.
        output_dir: the folder that the run may write to.
        feed: where batches come from, if not from the images to learn from.
        checkpoint: the checkpoint that the run goes on from.
        resumed: what that checkpoint says of the run so far.
        terms: the further terms of the loss, each with its weight.
        max_steps: optimiser steps in all.
        warmup_steps: of the learning rate.
        vae_fingerprint: of the original's weights.
        progress: whether to show progress bars.
    """

    given: nn.Module | str | Path
    original: nn.Module
    images: str | int
    recipe: str
    asked: Recipe
    config: FinetuneConfig
    transforms: list[Transform]
    training: ImageDataset
    validation: ImageDataset
    record: dict[str, Any]
    feed: Feed
    output_dir: Path
    checkpoint: Path | None
    resumed: RunState | None
    terms: list[tuple[float, Term]]
    max_steps: int
    warmup_steps: int
    vae_fingerprint: str
    progress: bool

    @property
    def starts_in_folder(self) -> bool:
        """Whether the output folder has to be new: no checkpoint in it is resumed."""
        here = self.output_dir.resolve()
        return self.checkpoint is None or self.checkpoint.resolve().parent != here

    @property
    def measured(self) -> ImageDataset:
        """The held-out images that are measured before and after."""
        count = min(len(self.validation), self.config.max_eval_samples)
        return self.validation.subset(range(count))

    @property
    def settings(self) -> dict[str, Any]:
        """What has to stay the same when the run is resumed."""
        return {
            **self.config.fixed(),
            "recipe": self.recipe,
            "transforms": _names_when_fitted(self.transforms, self.config),
            "images": len(self.training),
            "max_train_steps": self.max_steps,
            "vae_fingerprint": self.vae_fingerprint,
            "images_fingerprint": self.feed.fingerprint(self.training),
            "base_padding_mode": get_padding_mode(self.original),
            "latent_ops": [fingerprint_of(module) for module in operators_of(self.transforms)],
            "loss_fingerprint": _fingerprint_of_loss(self.config.reconstruction),
            "terms_fingerprint": fingerprints_of_terms(self.terms),
            "processes": process_state().num_processes,
        }


def make_plan(
    vae: nn.Module | str | Path,
    images: ImagesLike,
    transforms: TransformsLike | None,
    output_dir: str | Path,
    *,
    recipe: str | Path | Recipe | None,
    validation_images: ImagesLike | None,
    options: Mapping[str, Any],
    progress: bool,
) -> Plan:
    """The plan of `finetune`, whose arguments it takes. `InputError` for what cannot be done."""
    said = None if recipe is None else find_recipe(recipe)
    wanted = _transforms(transforms, said)
    original = load_vae(vae)
    check_scaling_is_known(original, "for the config of what is saved")
    asked = said if said and said.name else RECIPES[recipe_for(original, wanted)]
    config = make_config(asked, options)
    view = Autoencoder(original)
    check_resolution(config.resolution, view)
    folder = Path(output_dir)
    checkpoint = find_checkpoint(folder, config.resume_from_checkpoint)
    whole, stream = _images(images, config, view, checkpoint)
    training, validation = _shares(whole, validation_images, config, view)
    apart = validation_images is None and validation is not training
    feed = feed_of(stream, training, validation if apart else None, config, view)
    _check_together(wanted, training, feed, config, view)
    check_metric(config.keep_best, _names_when_fitted(wanted, config))
    if checkpoint is None or checkpoint.resolve().parent != folder.resolve():
        own = ", or go on with its run by resume_from_checkpoint='latest'"
        check_claim(folder, ours=OURS, otherwise=own if list_checkpoints(folder) else "")
    check_cache(config, training, feed)
    check_trackers(config)
    _check_device(config)
    check_optimizer(config)
    (lora_targets if config.lora_rank else learning_names)(view, config)
    max_steps = max_steps_of(config, training, feed)
    plan = Plan(
        given=vae,
        original=original,
        images=str(images) if isinstance(images, (str, Path)) else len(training),
        recipe=asked.name,
        asked=asked if said is None else replace(asked, run=said.run),
        config=config,
        transforms=wanted,
        training=training,
        validation=validation,
        record={**whole.record(), **({} if stream is None else {"shards": stream.shards.record()})},
        feed=feed,
        output_dir=folder,
        checkpoint=checkpoint,
        resumed=None if checkpoint is None else read_state(checkpoint),
        terms=plan_terms(config, view, training, wanted, max_steps),
        max_steps=max_steps,
        warmup_steps=warmup_steps_of(config, asked, options, max_steps),
        vae_fingerprint=fingerprint_of(original),
        progress=progress and process_state().is_main_process,
    )
    if plan.resumed is not None and checkpoint is not None:
        check_settings(checkpoint, plan.resumed, plan.settings)
    return plan


def _transforms(given: TransformsLike | None, recipe: Recipe | None) -> list[Transform]:
    """Those given, else the recipe's, else the half turn."""
    if given is not None:
        return resolve_transforms(given)
    if recipe is not None and "transforms" in recipe.incomplete:
        raise InputError(
            f"{recipe.origin} is of a run whose transforms no file can hold; pass transforms from Python, as "
            "that run did."
        )
    named = None if recipe is None else recipe.transforms
    return resolve_transforms(split_transforms(named or "rot180"))


def recipe_for(vae: nn.Module, transforms: Sequence[Transform]) -> str:
    """The recipe that suits a VAE and transforms, when none is named."""
    if isinstance(vae, SymmetrizedVAE):
        return "symmetrized"
    return "fitted" if transforms and all(operators_of([t]) for t in transforms) else "equivae"


def loss_of(
    transforms: Sequence[Transform], config: FinetuneConfig, *, reconstruction: Any = None
) -> EquivarianceLoss:
    """The loss that the options ask for; `reconstruction` stands in for theirs."""
    return EquivarianceLoss(
        transforms,
        weight=config.weight,
        reconstruction=reconstruction or config.reconstruction,
        reconstruction_weight=config.reconstruction_weight,
        schedule=config.schedule,
        probability=config.probability,
        image_scale_probability=config.image_scale_probability,
        encoder_weight=config.encoder_weight,
        sample_posterior=config.sample_posterior,
        chunk_size=config.chunk_size,
    )


def _images(
    images: ImagesLike, config: FinetuneConfig, vae: Autoencoder, checkpoint: Path | None
) -> tuple[ImageDataset, ImageStream | None]:
    """All images; those of the run that is resumed, where some of them vanished in between.

    Of a stream the first ones, and the stream.
    """
    reading = {"channels": vae.image_channels, **config.reading()}
    stream = None
    if config.max_train_samples is None:
        buffer = config.shuffle_buffer
        stream = load_stream(images, shuffle_buffer=buffer, seed=config.seed, **reading)
    if stream is None:
        found = load_images(images, max_samples=config.max_train_samples, **reading)
    else:
        found = stream.first(config.stream_head)
    record = None if checkpoint is None else read_images(checkpoint)
    if stream is not None and record is not None:
        stream.shards.check(record.get("shards", []))
    return (found if record is None else found.restore(record)), stream


def _shares(
    dataset: ImageDataset,
    validation_images: ImagesLike | None,
    config: FinetuneConfig,
    vae: Autoencoder,
) -> tuple[ImageDataset, ImageDataset]:
    """The images to learn from, and those that are held out."""
    if config.resolution is None:
        dataset.check_one_size()
    check_images(dataset[0][None], vae)
    if validation_images is not None:
        training = dataset
        validation = load_images(
            validation_images,
            channels=vae.image_channels,
            max_samples=config.max_eval_samples,
            **{**config.reading(), "streaming": False},
        )
        check_images(validation[0][None], vae)
    else:
        training, validation = dataset.split(config.validation_split, config.seed)
        # Without a held-out share the report can only speak of images that were trained on.
        validation = validation if len(validation) else training
    for share in (training, validation):
        share.set_draws(config.seed)
    return training, validation


def _check_together(
    transforms: Sequence[Transform],
    images: ImageDataset,
    feed: Feed,
    config: FinetuneConfig,
    vae: Autoencoder,
) -> None:
    """Whether images, transforms, crops and VAE suit one another, at the size and batch of the run."""
    example = images[0]
    batch_size = min(config.train_batch_size, len(images))
    check_transforms(transforms, layout_of(example[None]), vae, batch_size)
    _check_masks(transforms, example[None], vae)
    check_crop(config.crop_size, example, vae)
    check_operators(transforms, config)
    if config.crop_size is None:
        check_shapes(feed, example, transforms, vae, batch_size)


@torch.no_grad()
def _check_masks(transforms: Sequence[Transform], example: Tensor, vae: Autoencoder) -> None:
    """Whether every fixed transform leaves something of images of this size to compare."""
    for transform in transforms:
        placed = vae.place(transform)
        if placed.draw(1, torch.Generator().manual_seed(0)) is not placed:
            continue
        mask = placed.mask(example)
        if mask is not None and not mask.any():
            raise EmptyMaskError(
                f"transform {transform.name!r} leaves nothing of images of {example.shape[-2]}x"
                f"{example.shape[-1]} pixels to compare; choose a milder one or larger images."
            )


def _check_device(config: FinetuneConfig) -> None:
    for name, what in _SPLITTING.items():
        if parse_flag_from_env(name):
            raise InputError(
                f"{what} splits weights over processes, which a VAE has no need of; start with accelerate "
                "launch --multi_gpu, or torchrun, and each process holds the whole VAE."
            )
    if config.mixed_precision == "fp16" and process_state().device.type == "cpu":
        # accelerate would train in float32 without a word.
        raise InputError("mixed_precision='fp16' needs a GPU; use 'bf16' or 'no' on the CPU.")
    if config.channels_last and config.freeze and process_state().device.type == "cpu":
        # torch 2.13's group norm crashes in its backward pass when a channels-last input needs no gradient.
        raise InputError(
            "channels_last=True with frozen layers crashes torch on a CPU; leave channels_last or freeze out."
        )
    if config.compile:
        check_compiler(process_state().device)


def _fingerprint_of_loss(reconstruction: Any) -> str | None:
    return fingerprint_of(reconstruction) if isinstance(reconstruction, nn.Module) else None


def _names_when_fitted(transforms: Sequence[Transform], config: FinetuneConfig) -> list[str]:
    return [
        default_name(t) if config.fit_operator and not operators_of([t]) else t.name
        for t in transforms
    ]
