"""Pictures of a few images: the best, the median and the worst, by round-trip error."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from equivae.autoencoder import Autoencoder, measuring
from equivae.data.sources import ImageDataset
from equivae.evaluation.metrics import kind_of_op
from equivae.evaluation.results import Metrics, Panel
from equivae.evaluation.roundtrip import fix_draws, reconstruct, seed_of, travel
from equivae.transforms import Transform
from equivae.units import rank, unit

__all__ = ["choose_images", "picture"]


def choose_images(metrics: Metrics, count: int) -> list[tuple[int, str]]:
    """Positions of images and their ranks, evenly spaced from the best to the worst.

    They are ordered by their round-trip error, the mean over all transforms; NaN is the worst. One image is
    the median; three are the best, the median and the worst.
    """
    keys = [f"round_trip_mse/{name}" for name in metrics.transforms] or ["reconstruction_mse"]
    columns = [metrics.per_image[key] for key in keys]
    errors = [sum(values) for values in zip(*columns, strict=True)]
    order = sorted(range(len(errors)), key=lambda i: rank(errors[i], larger_is_better=False))
    count, last = min(count, len(order)), len(order) - 1
    shares = [i / (count - 1) for i in range(count)] if count > 1 else [0.5] * count
    names = {0.0: "best", 0.5: "median", 1.0: "worst"}
    return [
        (order[round(share * last)], names.get(share, f"worse than {share:.0%}"))
        for share in shares
    ]


def picture(
    vae: Autoencoder,
    images: ImageDataset,
    chosen: Sequence[tuple[int, str]],
    transforms: Sequence[Transform],
    seed: int = 0,
) -> list[Panel]:
    """A `Panel` of every chosen image under every transform, with the draws that `measure` made.

    The picture of a video is its middle frame; audio has none.
    """
    if not len(chosen) or images[0].ndim < 3:
        return []
    panels = []
    with measuring(vae.module):
        for index, rank in chosen:
            batch = reconstruct(vae, images[index][None].to(vae.device, vae.dtype))
            for named in transforms:
                fixed, _ = fix_draws(vae, named, batch, seed_of(seed, index))
                trip = travel(vae, batch, fixed, named.name)
                panels.append(
                    Panel(
                        image=images.names[index],
                        transform=named.name,
                        original=_shown(batch.plain[0]),
                        reconstruction=_shown(batch.seen[0]),
                        moved=_shown(unit(trip.decoded)[0]),
                        back=None if trip.back is None else _shown(trip.back[0]),
                        rank=rank,
                        latent=_kept(batch.z),
                        moved_latent=_kept(trip.latent),
                        encoded_moved=_kept(vae.encode(trip.turned)),
                        target=_shown(unit(trip.turned)[0]),
                        latent_op=kind_of_op(named),
                    )
                )
    return panels


def _shown(image: Tensor) -> Tensor:
    return (image if image.ndim == 3 else image[:, image.shape[1] // 2]).cpu()


def _kept(latents: Tensor) -> Tensor:
    return latents[0].float().cpu()
