"""Whether the latents of a run are cached, and where they may be kept."""

from __future__ import annotations

from equivae.data.sources import ImageDataset
from equivae.errors import InputError
from equivae.files.writing import check_output
from equivae.training.config import FinetuneConfig
from equivae.training.feeding import Feed

__all__ = ["check_cache", "keeps_latents"]


def keeps_latents(config: FinetuneConfig, images: ImageDataset) -> bool:
    """Whether an image has the same latent at every step."""
    # Crops are encoded as they come: a crop of a latent knows of pixels beyond the crop of the image.
    # Images that are drawn anew have other latents every time.
    anew = config.sample_posterior or config.crop_size or config.random_flip or images.draws
    return config.half == "decoder" and not (anew or config.encoder_weight)


def check_cache(config: FinetuneConfig, images: ImageDataset, feed: Feed) -> None:
    """`InputError` for a folder of latents that a run would not use, or cannot write to."""
    if config.latent_cache_dir is None:
        return
    if not keeps_latents(config, images) or feed.stream is not None or feed.buckets is not None:
        raise InputError(
            "latent_cache_dir does nothing where latents are not cached; it needs train='decoder' and images "
            "that are the same at every step: no stream, enable_bucket, crop_size, random_flip, "
            "sample_posterior or encoder_weight."
        )
    check_output("latent_cache_dir", config.latent_cache_dir)
