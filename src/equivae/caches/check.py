"""What a cache of moved latents is worth: the images encoded again, for as many as are asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from equivae.caches.layout import CacheFormat, Picture
from equivae.caches.op import CacheOp
from equivae.caches.report import Check
from equivae.errors import InputError

__all__ = ["check_cache"]

_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def check_cache(
    form: CacheFormat,
    files: Sequence[Path],
    op: CacheOp,
    vae: nn.Module,
    count: int,
    cache_dir: Path,
    image_dir: str | Path | None,
) -> Check:
    """The errors over the first `count` latents whose images are found. `InputError` when none is."""
    from equivae.autoencoder import Autoencoder, evaluating

    view = Autoencoder(vae)
    pairs = _pairs(form, files, count, cache_dir, image_dir)
    plain = op.plain
    sums = {"fitted": [0.0, 0.0], "plain": [0.0, 0.0], "unmoved": [0.0, 0.0]}
    with torch.no_grad(), evaluating(view.module):
        for path, picture in pairs:
            (cached, *_) = form.read(path, op.channels)
            size = (cached.shape[-2] * view.factor, cached.shape[-1] * view.factor)
            image = read_picture(picture, size)
            z, target = view.encode(image), view.encode(plain.pixel(image))
            if cached.shape != z.shape:
                raise InputError(
                    f"the latents of {path} have shape {tuple(cached.shape)}, the VAE makes "
                    f"{tuple(z.shape)} of such an "
                    "image; pass the VAE that made the cache."
                )
            unscaled = cached.float() if op.scaling is None else op.scaling.unscale(cached.float())
            for name, found, truth in (
                ("fitted", op.on_scaled(None)(unscaled), target),
                ("plain", plain.latent(unscaled), target),
                ("unmoved", unscaled, z),
            ):
                sums[name][0] += float((found - truth).square().sum())
                sums[name][1] += float(truth.square().sum())
    errors = {name: math.sqrt(wrong / max(whole, 1e-30)) for name, (wrong, whole) in sums.items()}
    return Check(len(pairs), **{name: round(error, 4) for name, error in errors.items()})


def read_picture(picture: Picture, size: tuple[int, int]) -> Tensor:
    """The part of an image that was encoded, `(1, 3, H, W)` in [-1, 1].

    Args:
        picture: which part. Without its resizing, the image covers `size` and is cropped at the centre.
        size: height and width in pixels.
    """
    from PIL import Image, ImageOps

    with Image.open(picture.path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    height, width = size
    if picture.resized is None:
        ratio = max(width / image.width, height / image.height)
        resized = (max(width, round(image.width * ratio)), max(height, round(image.height * ratio)))
    else:
        resized = picture.resized
    if resized != image.size:
        image = image.resize(resized, Image.Resampling.LANCZOS)
    corner = picture.corner or ((image.width - width) // 2, (image.height - height) // 2)
    image = image.crop((*corner, corner[0] + width, corner[1] + height))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def _pairs(
    form: CacheFormat,
    files: Sequence[Path],
    count: int,
    cache_dir: Path,
    image_dir: str | Path | None,
) -> list[tuple[Path, Picture]]:
    places = [Path(image_dir)] if image_dir else [cache_dir, cache_dir.resolve().parent]
    images: dict[str, Path] = {}
    for place in places:
        found = (
            place.rglob("*") if place in (cache_dir, image_dir) or image_dir else place.iterdir()
        )
        for path in found:
            if path.suffix.lower() in _IMAGES:
                images.setdefault(path.stem, path)
    pairs: list[tuple[Path, Picture]] = []
    for path in files:
        picture = form.picture(path, images)
        if picture is not None:
            pairs.append((path, picture))
        if len(pairs) == count:
            break
    if not pairs:
        raise InputError(
            f"check={count} encodes images again, and no image of the cache was found in "
            f"{' or '.join(map(str, places))}; pass image_dir, or leave check out."
        )
    return pairs
