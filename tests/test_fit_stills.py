"""Latent ops of a video autoencoder for images, which it takes as videos of one frame."""

from __future__ import annotations

import torch

import equivae
import matrix_models


def test_a_latent_op_is_fitted_for_the_images_of_a_video_autoencoder():
    vae = matrix_models.make("AutoencoderKLWan")
    images = equivae.data.dead_leaves(6, size=32, seed=1)
    fitted = equivae.fit_latent_op(vae, "hflip", images, kernel_size=3, progress=False)
    assert fitted.layouts == ("image",)
    latents = equivae.Autoencoder(vae).encode(images)
    moved = equivae.Autoencoder(vae).encode(images.flip(-1))
    assert fitted.latent(latents).shape == latents.shape
    error = (fitted.latent(latents) - moved).square().mean()
    assert error < (latents.flip(-1) - moved).square().mean()
    found = equivae.evaluate(vae, images, [fitted], progress=False, sweep_samples=0, panels=0)
    assert torch.isfinite(torch.tensor(found.metrics.transforms[fitted.name].round_trip_psnr))
