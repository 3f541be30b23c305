"""Recipes: named sets of options of a fine-tune."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """A named set of options, what it is for, and where it comes from."""

    name: str
    summary: str
    source: str
    options: Mapping[str, Any]


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "equivae",
            "The default for the plain grid move: the layers at latent resolution first, then all weights, "
            "one decode per image.",
            "EQ-VAE's draw (arXiv 2502.09509); benchmarks/sotemix_rot180.py",
            {},
        ),
        Recipe(
            "published",
            "The 180° experiment as published: two decodes per image, all weights, 5 epochs.",
            "the SoteMix experiment",
            {
                "schedule": "dual",
                "train": "all",
                "bottleneck_steps": 0,
                "train_batch_size": 3,
                "num_train_epochs": 5,
                "learning_rate": 5e-5,
                "lr_scheduler": "constant",
                "lr_warmup_steps": 0,
                "adam_beta2": 0.999,
                "adam_weight_decay": 0.01,
                "max_grad_norm": 0.0,
                "use_ema": False,
                "resolution": 256,
            },
        ),
        Recipe(
            "decoder",
            "The encoder frozen and its latents cached: existing diffusion models stay valid.",
            "diffusers' train_autoencoderkl, HakuLatent",
            {"train": "decoder"},
        ),
        Recipe(
            "fitted",
            "Latent ops fitted first, then decoder and latent ops trained; the encoder stays as it is.",
            "benchmarks/sotemix_rot180.py",
            {
                "train": "decoder",
                "fit_operator": True,
                "train_operator": True,
                "weight": 4.0,
                "probability": 0.8,
                "learning_rate": 2e-4,
                "use_ema": True,
                "ema_decay": 0.98,
            },
        ),
        Recipe(
            "symmetrized",
            "For a symmetrized VAE: decoder and context learn, which removes the seam; the encoder stays.",
            "benchmarks/sotemix_rot180.py",
            {"train": "decoder", "learning_rate": 2e-4, "use_ema": True, "ema_decay": 0.98},
        ),
    )
}
