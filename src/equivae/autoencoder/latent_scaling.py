"""How a tool scales latents; it lies where applying a latent op needs nothing of this room."""

from equivae.latent_scaling import LatentScaling

__all__ = ["LatentScaling"]
