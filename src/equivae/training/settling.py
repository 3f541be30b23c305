"""The scaling of a run's latents, put into the config of every VAE that the run saves."""

from __future__ import annotations

from equivae.autoencoder import Autoencoder
from equivae.evaluation.latent_space import LatentSpace, settle_latent_space
from equivae.training.plan import Plan

__all__ = ["settled"]


def settled(plan: Plan, vae: Autoencoder) -> LatentSpace:
    """What became of the latents, measured on the run's images; the VAE's config gets their scaling."""
    config = plan.config
    some = range(min(len(plan.training), config.max_eval_samples))
    return settle_latent_space(
        Autoencoder(plan.original),
        vae,
        plan.training.subset(some),
        update_scaling_factor=config.update_scaling_factor,
        eval_batch_size=config.eval_batch_size,
        seed=config.seed,
    )
