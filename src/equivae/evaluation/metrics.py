"""How equivariant a VAE is, and how well it reconstructs: the numbers, measured in one pass."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import DataLoader

from equivae.autoencoder import Autoencoder, check_images, check_transforms, layout_of
from equivae.data.sources import ImageDataset, collate
from equivae.errors import InputError
from equivae.transforms import Transform
from equivae.transforms.base import mask_like, mask_of_cells

__all__ = ["Metrics", "Panel", "TransformMetrics", "measure", "psnr"]


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of an error in [0, 1] units (peak 1): `-10 log10(MSE)`."""
    return -10 * math.log10(mse) if mse > 0 else math.inf


@dataclass(frozen=True)
class TransformMetrics:
    """One transform's errors, means over the images. Errors in [0, 1] units, after clamping.

    Attributes:
        round_trip_mse: `MSE(T⁻¹ D(ρ E(x)), x)`; for a transform that interpolates or has no inverse
            `MSE(D(ρ E(x)), T x)`, so that no resampling error is counted.
        round_trip_psnr: its PSNR in dB.
        round_trip_ssim: structural similarity of the same two images (Wang et al., 2004; 11x11 window).
        equivariance_gap_db: reconstruction PSNR minus round-trip PSNR, inside the same mask.
        encoder_relative_error: `‖E(T x) - ρ E(x)‖ / ‖E(T x)‖`, inside the mask.
    """

    round_trip_mse: float
    round_trip_psnr: float
    round_trip_ssim: float
    equivariance_gap_db: float
    encoder_relative_error: float


@dataclass(frozen=True)
class Metrics:
    """What one VAE does on one set of images.

    Attributes:
        images: how many.
        reconstruction_mse: `MSE(D(E(x)), x)` in [0, 1] units, after clamping.
        reconstruction_psnr: its PSNR in dB.
        reconstruction_ssim: structural similarity; not a number for audio. That of a video is the mean
            over its frames.
        transforms: name to `TransformMetrics`.
        per_image: `"reconstruction_mse"` and `"round_trip_mse/<transform>"`, each a list over the images.
    """

    images: int
    reconstruction_mse: float
    reconstruction_psnr: float
    reconstruction_ssim: float
    transforms: dict[str, TransformMetrics] = field(default_factory=dict)
    per_image: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Panel:
    """Four pictures of one image under one transform, each `(C, H, W)` in [0, 1] on the CPU."""

    image: str
    transform: str
    original: Tensor
    reconstruction: Tensor
    moved: Tensor
    back: Tensor | None


@torch.no_grad()
def measure(
    vae: Autoencoder,
    images: ImageDataset,
    transforms: list[Transform],
    *,
    batch_size: int = 4,
    panels: int = 2,
    progress: bool = True,
    label: str = "evaluate",
) -> tuple[Metrics, list[Panel]]:
    """Metrics of a VAE over images, videos or audio, and pictures of a few, evenly spaced.

    The picture of a video is its middle frame; audio has none.
    """
    from tqdm.auto import tqdm

    first = images[0][None]
    check_transforms(transforms, layout_of(first), vae, min(batch_size, len(images)))

    loader = DataLoader(images, batch_size, collate_fn=collate)  # type: ignore[arg-type]
    sums: dict[str, list[float]] = defaultdict(list)
    pictures: list[Panel] = []
    chosen = {i * len(images) // panels for i in range(min(panels, len(images)))}
    modes = [(part, part.training) for part in vae.module.modules()]
    vae.module.eval()
    try:
        with vae.full_precision():
            for batch in tqdm(loader, desc=label, disable=not progress, leave=False):
                check_images(batch, vae)
                done = len(sums["reconstruction_mse"])
                pictured = {i - done: images.names[i] for i in chosen if 0 <= i - done < len(batch)}
                moved = batch.to(vae.device, vae.dtype)
                for key, values in _measure_batch(vae, moved, transforms, pictured, pictures):
                    sums[key] += values.tolist()
    finally:
        for part, training in modes:
            part.training = training
    return _summary(sums, transforms), pictures


def _measure_batch(
    vae: Autoencoder,
    x: Tensor,
    transforms: list[Transform],
    pictured: dict[int, str],
    pictures: list[Panel],
) -> Iterator[tuple[str, Tensor]]:
    z = vae.encode(x)
    output = vae.decode(z)
    if output.shape != x.shape:
        raise InputError(
            f"{type(vae.module).__name__} decodes the latent of {tuple(x.shape)} to {tuple(output.shape)}; "
            "give it a size that it keeps."
        )
    plain, reconstruction = _unit(x), _unit(output)
    error = (reconstruction - plain).square()
    yield "reconstruction_mse", error.flatten(1).mean(1)
    yield "reconstruction_ssim", _ssim(reconstruction, plain)
    for named in transforms:
        name = named.name
        transform = vae.place(named).draw(x.shape[0], torch.Generator().manual_seed(0))
        turned = transform.pixel(x)
        latent = transform.latent(z)
        decoded = vae.decode(latent)
        if decoded.shape != turned.shape:
            raise InputError(
                f"transform {name!r} moves pixels to {tuple(turned.shape[2:])} but its latent "
                f"decodes to {tuple(decoded.shape[2:])}: its two ops disagree about the shape."
            )
        back: Tensor | None
        try:
            inverse = transform.inverse
        except NotImplementedError:
            back = None
        else:
            back = _unit(inverse.pixel(decoded))
        if transform.exact and back is not None:
            seen, target, mask = back, plain, (inverse @ transform).mask(x)
            masked_error = _mean_inside(error, mask)
        else:
            seen, target, mask = _unit(decoded), _unit(turned), transform.mask(x)
            moved_error = _unit(transform.pixel(output)) - target
            masked_error = _mean_inside(moved_error.square(), mask)
        yield f"round_trip_mse/{name}", _mean_inside((seen - target).square(), mask)
        yield f"reconstruction_mse/{name}", masked_error
        if mask is not None:
            seen = torch.where(mask_like(mask, seen), seen, target)
        yield f"round_trip_ssim/{name}", _ssim(seen, target)
        encoded, expected = vae.encode(turned).float(), latent.float()
        if encoded.shape != expected.shape:
            raise InputError(
                f"transform {name!r} moves the latent grid to {tuple(expected.shape[2:])} cells, but the "
                f"moved input encodes to {tuple(encoded.shape[2:])}: choose another transform for "
                f"{type(vae.module).__name__}."
            )
        own = transform.mask(x)
        if own is not None:
            cells = mask_of_cells(own, encoded.shape[-2:])
            cells = mask_like(cells, encoded)
            encoded, expected = encoded * cells, expected * cells
        yield (
            f"encoder_relative_error/{name}",
            (encoded - expected).flatten(1).norm(dim=1)
            / encoded.flatten(1).norm(dim=1).clamp_min(1e-12),
        )
        for i in sorted(pictured) if x.ndim > 3 else ():
            pictures.append(
                Panel(
                    pictured[i],
                    name,
                    _picture(plain[i]),
                    _picture(reconstruction[i]),
                    _picture(_unit(decoded[i])),
                    None if back is None else _picture(back[i]),
                )
            )


def _summary(sums: dict[str, list[float]], transforms: list[Transform]) -> Metrics:
    def mean(key: str) -> float:
        return math.fsum(sums[key]) / len(sums[key])

    found = {}
    for transform in transforms:
        name = transform.name
        round_trip = psnr(mean(f"round_trip_mse/{name}"))
        reference = psnr(mean(f"reconstruction_mse/{name}"))
        # Two infinite PSNRs, a perfect VAE, have no gap.
        gap = 0.0 if round_trip == reference else reference - round_trip
        found[name] = TransformMetrics(
            round_trip_mse=mean(f"round_trip_mse/{name}"),
            round_trip_psnr=round_trip,
            round_trip_ssim=mean(f"round_trip_ssim/{name}"),
            equivariance_gap_db=gap,
            encoder_relative_error=mean(f"encoder_relative_error/{name}"),
        )
    kept = ["reconstruction_mse", *(f"round_trip_mse/{t.name}" for t in transforms)]
    per_image: dict[str, Any] = {key: list(sums[key]) for key in kept}
    return Metrics(
        images=len(sums["reconstruction_mse"]),
        reconstruction_mse=mean("reconstruction_mse"),
        reconstruction_psnr=psnr(mean("reconstruction_mse")),
        reconstruction_ssim=mean("reconstruction_ssim"),
        transforms=found,
        per_image=per_image,
    )


def _unit(images: Tensor) -> Tensor:
    """From [-1, 1] to [0, 1], clamped, in float32."""
    return images.float().clamp(-1, 1).add(1).div(2)


def _picture(image: Tensor) -> Tensor:
    """An image, or the middle frame of a video, on the CPU."""
    return (image if image.ndim == 3 else image[:, image.shape[1] // 2]).cpu()


def _mean_inside(error: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return error.flatten(1).mean(1)
    inside = mask_like(mask, error).to(error.dtype)
    inside = inside.expand(error.shape[0], 1, *error.shape[2:]).flatten(1)
    return (error.mean(1).flatten(1) * inside).sum(1) / inside.sum(1).clamp_min(1)


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    if a.ndim == 3:
        return torch.full((a.shape[0],), math.nan)
    if a.ndim == 5:
        frames = "b c t h w -> (b t) c h w"
        of_frames = _ssim(rearrange(a, frames), rearrange(b, frames))
        return rearrange(of_frames, "(b t) -> b t", b=a.shape[0]).mean(1)
    from kornia.metrics import ssim

    window = min(11, (min(a.shape[-2:]) - 1) // 2 * 2 + 1)
    similarity: Tensor = ssim(a, b, window, max_val=1.0, padding="valid")
    return similarity.mean((1, 2, 3))
