"""Whether an op fits a cache: channels, scaling and statistics, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from equivae.caches.layout import CacheFormat
from equivae.caches.op import CacheOp
from equivae.caches.space import LatentSpace, check_statistics
from equivae.errors import InputError
from equivae.latent_scaling import LatentScaling

__all__ = ["fit_to_cache"]

_SAMPLES = 16  # files whose statistics are looked at


def fit_to_cache(
    form: CacheFormat,
    op: CacheOp,
    files: Sequence[Path],
    scaled: bool | LatentScaling | None,
    vae: nn.Module | str | Path | None,
) -> tuple[CacheOp, nn.Module | None, str]:
    """The op on latents as this cache holds them, once everything known of them agrees; the VAE; and how
    the latents were taken."""
    loaded, space = None, op.space
    if vae is not None:
        # These need diffusers, which a run without a VAE does not.
        from equivae.autoencoder import Autoencoder
        from equivae.files.pretrained import load_vae

        loaded = load_vae(vae)
        op.check_vae(loaded)
        factor = Autoencoder(loaded).factor
        space = space.over(replace(LatentSpace.of_vae(loaded), factor=factor))
    told = form.scales(files[0])
    is_scaled = bool(scaled) if isinstance(scaled, bool) else told
    if isinstance(scaled, LatentScaling):
        space = LatentSpace(scaling=scaled).over(space)
        is_scaled = True
    space = space.over(form.space(files[0]))
    if op.channels is None:
        is_scaled = False  # a plain latent op moves scaled latents as it moves others
    if is_scaled is None:
        raise InputError(
            f"{form.name} files do not tell whether their latents are scaled; say so with scaled=False "
            "for latents as "
            "`encode` returns them, or scaled=True."
        )
    if is_scaled and space.scaling is None:
        raise InputError(
            f"the latents of {form.name} are scaled, and a fitted op has to know how: pass the VAE, or "
            "scaling_factor and shift_factor."
        )
    step = max(1, len(files) // _SAMPLES)
    samples = []
    for path in files[::step][:_SAMPLES]:
        for batch in form.read(path, op.channels):
            op.check(batch, path)
            samples.append(batch)
        _check_factor(space, form.factor(path), path)
    if op.channels is None:
        return op.on_scaled(None), loaded, "a plain latent op is the same for scaled latents"
    sure = isinstance(scaled, (bool, LatentScaling))
    why = "as you say" if sure else f"as {form.name} keeps them"
    taken = check_statistics(samples, space, is_scaled, why, sure=sure)
    return op.on_scaled(space.scaling if is_scaled else None), loaded, taken


def _check_factor(space: LatentSpace, factor: int | None, where: Path) -> None:
    """`InputError` when latents are known to have another number of pixels per cell than the op's."""
    if factor is None or space.factor in (None, factor):
        return
    raise InputError(
        f"the latent op is for a VAE of factor {space.factor} (pixels per latent cell), and the latents of "
        f"{where} have {factor}; pass an op of the VAE that made them."
    )
