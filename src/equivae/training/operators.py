"""Fitted latent ops in a fine-tune: fitted at its start, or copied, and found again when it is resumed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from equivae.autoencoder import Autoencoder
from equivae.data.sources import ImageDataset
from equivae.errors import InputError
from equivae.files.provenance import OPERATORS
from equivae.operators import (
    FitOptions,
    fit_operators,
    load_latent_op,
    operators_of,
    save_operators,
)
from equivae.operators.transform import default_name
from equivae.processes import process_state
from equivae.training.config import FinetuneConfig
from equivae.transforms import Transform

__all__ = ["FITTED", "check_operators", "with_operators"]

FITTED = "operators-fitted"
"""The folder that holds them as they were fitted, for a run that trains them and is resumed."""


def check_operators(transforms: Sequence[Transform], config: FinetuneConfig) -> None:
    """Raise `InputError` when operators are to be trained and there will be none."""
    if config.train_operator and not config.fit_operator and not operators_of(transforms):
        raise InputError(
            "train_operator=True needs fitted transforms, as fit_latent_op gives them; pass those, or "
            "fit_operator=True."
        )


def with_operators(
    vae: Autoencoder,
    transforms: Sequence[Transform],
    images: ImageDataset,
    output_dir: Path,
    resuming: bool,
    config: FinetuneConfig,
    progress: bool,
) -> list[Transform]:
    """The transforms that a run trains under.

    With `fit_operator` those without a fitted latent op get one, fitted on the training images and kept in
    `output_dir`, where a resumed run finds it. With `train_operator` all are copies, since what the caller
    passed in stays as it is.
    """
    found = list(transforms)
    if config.fit_operator:
        plain = [t for t in found if not operators_of([t])]
        saved = {t.name: output_dir / FITTED / default_name(t) for t in plain}
        if resuming and all(path.is_dir() for path in saved.values()):
            fitted = {t.name: load_latent_op(saved[t.name], t) for t in plain}
        else:
            options = FitOptions(
                config.kernel_size,
                eval_batch_size=config.eval_batch_size,
                mixed_precision=config.mixed_precision,
                seed=config.seed,
                progress=progress,
            )
            fitted = fit_operators(vae, plain, images, options) if plain else {}
            if process_state().is_main_process:
                save_operators(fitted.values(), output_dir / FITTED)
                save_operators(fitted.values(), output_dir / OPERATORS)
        for made in fitted.values():
            made.module.to(vae.device)
        found = [fitted.get(t.name, t) for t in found]
    return copy.deepcopy(found) if config.train_operator else found
