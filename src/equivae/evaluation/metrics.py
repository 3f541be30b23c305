"""How equivariant a VAE is, and how well it reconstructs: the numbers, measured in one pass."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader

from equivae.autoencoder import (
    Autoencoder,
    check_images,
    check_transforms,
    evaluating,
    layout_of,
)
from equivae.data.sources import ImageDataset, collate
from equivae.errors import InputError
from equivae.evaluation.features import (
    BackboneLike,
    FeatureSums,
    LpipsLike,
    check_features,
    frechet_distance,
    resolve_features,
    resolve_lpips,
)
from equivae.evaluation.latents import Latents, LatentSums, relative_drift
from equivae.evaluation.quality import mean_inside, psnr, similarity
from equivae.evaluation.results import GroupMetrics, Metrics, Panel, Spread, TransformMetrics
from equivae.evaluation.roundtrip import (
    Reconstruction,
    RoundTrip,
    fix_draws,
    reconstruct,
    seed_of,
    travel,
)
from equivae.evaluation.statistics import Resampling, psnr_of
from equivae.evaluation.sweeps import measure_sweeps, sweep_images
from equivae.processes import process_state
from equivae.transforms import Transform, get_group, list_groups
from equivae.transforms.base import mask_of_cells

__all__ = ["MeasureOptions", "Metrics", "Panel", "TransformMetrics", "measure", "psnr"]

_mean_inside = mean_inside
_KEPT_LATENTS = 256 * 2**20  # bytes of the baseline's latents held for the drift


@dataclass(frozen=True)
class MeasureOptions:
    """What is measured beside the basic numbers.

    Attributes:
        batch_size: images per encoder and decoder call.
        ceiling: decode `E(T x)` as well, for the best that the decoder could do.
        sweep_samples: images on which angles and scales are swept; 0 for none.
        features: a backbone, see `resolve_features`.
        lpips: a perceptual distance, see `resolve_lpips`.
        seed: of random transforms and of the bootstrap.
        progress: show a progress bar.
    """

    batch_size: int = 4
    ceiling: bool = True
    sweep_samples: int = 0
    features: BackboneLike | None = None
    lpips: LpipsLike | None = None
    seed: int = 0
    progress: bool = True


@dataclass
class _Found:
    """What one process found: numbers by name and image, and sums over its images."""

    numbers: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    latents: LatentSums = field(default_factory=LatentSums)
    features: dict[str, FeatureSums] = field(default_factory=lambda: defaultdict(FeatureSums))

    def add(self, name: str, values: Tensor | None, indices: Sequence[int]) -> None:
        if values is not None:
            self.numbers[name].update(zip(indices, values.float().tolist(), strict=True))

    def merge(self, other: _Found) -> None:
        for name, values in other.numbers.items():
            self.numbers[name].update(values)
        self.latents.merge(other.latents)
        for name, sums in other.features.items():
            self.features[name].merge(sums)


@torch.no_grad()
def measure(
    vae: Autoencoder,
    images: ImageDataset,
    transforms: Sequence[Transform],
    options: MeasureOptions | None = None,
    *,
    label: str = "evaluate",
    keep_latents: Latents | None = None,
    baseline_latents: Mapping[int, Tensor] | None = None,
) -> Metrics:
    """Metrics of a VAE over images, shared out batch by batch among accelerate's processes.

    Every process returns the same, whatever their number.

    Args:
        vae: the same on every process.
        images: of one size, or of sizes that are alike within every batch.
        transforms: with distinct names.
        options: what is measured.
        label: of the progress bar.
        keep_latents: is filled with the latents by image, up to 256 MB of them.
        baseline_latents: what another VAE's measurement kept, to tell the drift.
    """
    from tqdm.auto import tqdm

    options = options or MeasureOptions()
    check_transforms(
        transforms, layout_of(images[0][None]), vae, min(options.batch_size, len(images))
    )
    state = process_state()
    meter = _Meter(vae, transforms, options)
    starts = list(range(0, len(images), options.batch_size))
    drifts: dict[int, float] = {}
    kept = 0
    with (
        evaluating(vae.module),
        vae.full_precision(),
        state.split_between_processes(starts) as mine,
    ):
        batches = [list(range(s, min(s + options.batch_size, len(images)))) for s in mine]
        loader = DataLoader(images, batch_sampler=batches, collate_fn=collate)  # type: ignore[arg-type]
        quiet = not (options.progress and state.is_main_process)
        bar = tqdm(loader, desc=label, disable=quiet, leave=False)
        for indices, batch in zip(batches, bar, strict=True):
            check_images(batch, vae)
            done = meter.see(batch.to(vae.device, vae.dtype), indices)
            for index, latent in zip(indices, done.z, strict=True):
                drift = relative_drift(latent, index, baseline_latents or {})
                if drift is not None:
                    drifts[index] = drift
                if keep_latents is not None and kept < _KEPT_LATENTS:
                    keep_latents[index] = latent.float().cpu()
                    kept += latent.numel() * 4
    found = _Found()
    for part, some in gather_object([(meter.found, drifts)]):
        found.merge(part)
        drifts |= some
    sweeps = {}
    if options.sweep_samples and images[0].ndim == 3:
        swept = sweep_images(len(images), options.sweep_samples)
        with evaluating(vae.module), vae.full_precision():
            sweeps = measure_sweeps(vae, [images[i][None] for i in swept])
    ordered = [drifts[index] for index in sorted(drifts)]
    summary = _Summary(found, images.names, [t.name for t in transforms], options.seed)
    return summary.metrics(sweeps=sweeps, latents=found.latents.statistics(ordered))


class _Meter:
    """Measures batches, one by one."""

    def __init__(
        self, vae: Autoencoder, transforms: Sequence[Transform], options: MeasureOptions
    ) -> None:
        self.vae, self.transforms, self.options = vae, transforms, options
        self.backbone = resolve_features(options.features, vae.device)
        self.lpips = resolve_lpips(options.lpips, vae.device)
        self.found = _Found()

    def see(self, x: Tensor, indices: Sequence[int]) -> Reconstruction:
        batch, found = reconstruct(self.vae, x), self.found
        found.latents.add(x, batch.z)
        found.add("reconstruction_mse", mean_inside(_error(batch), None), indices)
        ssim, ms_ssim = similarity(batch.seen, batch.plain)
        found.add("reconstruction_ssim", ssim, indices)
        found.add("reconstruction_ms_ssim", ms_ssim, indices)
        features = self._features("reconstruction", batch.seen, batch.plain, indices)
        for named in self.transforms:
            fixed, drawn = fix_draws(self.vae, named, batch, seed_of(self.options.seed, indices[0]))
            if not drawn or fixed.mixes_samples:
                self._transform(batch, fixed, named.name, indices, features)
                continue
            # One by one, so that a draw belongs to its image whatever the batches.
            for i, index in enumerate(indices):
                one = batch.rows(i, i + 1)
                fixed, _ = fix_draws(self.vae, named, one, seed_of(self.options.seed, index))
                some = None if features is None else features[i : i + 1]
                self._transform(one, fixed, named.name, [index], some)
        return batch

    def _transform(
        self,
        batch: Reconstruction,
        transform: Transform,
        name: str,
        indices: Sequence[int],
        features: Tensor | None,
    ) -> None:
        trip, found = travel(self.vae, batch, transform, name), self.found
        error = mean_inside((trip.seen - trip.target).square(), trip.mask)
        found.add(f"round_trip_mse/{name}", error, indices)
        found.add(f"reconstruction_mse/{name}", trip.reconstruction_mse, indices)
        ssim, ms_ssim = similarity(trip.seen, trip.target, trip.mask)
        found.add(f"round_trip_ssim/{name}", ssim, indices)
        found.add(f"round_trip_ms_ssim/{name}", ms_ssim, indices)
        encoded = self.vae.encode(trip.turned)
        if encoded.shape != trip.latent.shape:
            raise InputError(
                f"transform {name!r} moves the latent grid to {tuple(trip.latent.shape[2:])} cells, but the "
                f"moved input encodes to {tuple(encoded.shape[2:])}: choose another transform for "
                f"{type(self.vae.module).__name__}."
            )
        relative, cosine = _encoder_side(encoded, trip, batch.x)
        found.add(f"encoder_relative_error/{name}", relative, indices)
        found.add(f"encoder_cosine/{name}", cosine, indices)
        if self.options.ceiling:
            best = trip.compared(self.vae.decode(encoded))
            error = mean_inside((best - trip.target).square(), trip.mask)
            found.add(f"ceiling_mse/{name}", error, indices)
        if self.backbone is not None or self.lpips is not None:
            seen = trip.seen
            if trip.mask is not None:
                seen = torch.where(trip.mask, seen, trip.target)
            # An exact round trip ends at the original, whose features are known.
            known = features if trip.target is batch.plain else None
            self._features(f"round_trip/{name}", seen, trip.target, indices, known)

    def _features(
        self,
        name: str,
        seen: Tensor,
        target: Tensor,
        indices: Sequence[int],
        known: Tensor | None = None,
    ) -> Tensor | None:
        """Feature metrics of two batches; returns the features of `target`."""
        if self.lpips is not None:
            self.found.add(f"{name}/lpips", self.lpips(seen, target).flatten(), indices)
        if self.backbone is None:
            return None
        count = len(indices)
        there = known if known is not None else check_features(self.backbone(target), count)
        here = check_features(self.backbone(seen), count)
        cosine = F.cosine_similarity(here, there, dim=1)
        self.found.add(f"{name}/feature_cosine", cosine, indices)
        self.found.features[f"{name}/seen"].add(here)
        self.found.features[f"{name}/target"].add(there)
        return there


def _error(batch: Reconstruction) -> Tensor:
    return (batch.seen - batch.plain).square()


def _encoder_side(encoded: Tensor, trip: RoundTrip, x: Tensor) -> tuple[Tensor, Tensor]:
    """Relative error and cosine of `ρ E(x)` against `E(T x)`, each `(B,)`."""
    encoded, expected = encoded.float(), trip.latent.float()
    own = trip.transform.mask(x)
    if own is not None:
        cells = mask_of_cells(own, encoded.shape[-2:])
        if encoded.ndim == 5:
            cells = cells.unsqueeze(2)
        encoded, expected = encoded * cells, expected * cells
    encoded, expected = encoded.flatten(1), expected.flatten(1)
    relative = (encoded - expected).norm(dim=1) / encoded.norm(dim=1).clamp_min(1e-12)
    blank = (encoded.norm(dim=1) < 1e-12) & (expected.norm(dim=1) < 1e-12)
    cosine = F.cosine_similarity(encoded, expected, dim=1, eps=1e-12)
    return relative, torch.where(blank, 1.0, cosine)


class _Summary:
    """From the numbers of every image to those of all."""

    def __init__(
        self, found: _Found, names: Sequence[str], transforms: Sequence[str], seed: int
    ) -> None:
        self.names, self.transforms, self.features = list(names), transforms, found.features
        count = len(self.names)
        self.per_image = {
            key: [values[i] for i in range(count)]
            for key, values in found.numbers.items()
            if len(values) == count
        }
        self.resampling = Resampling(self.names, self.per_image, seed)

    def metrics(self, **more: Any) -> Metrics:
        spreads: dict[str, Spread] = {}
        plain = ["reconstruction_mse"]
        spreads["reconstruction_psnr"] = self._psnr(plain)
        self._spread(spreads, "reconstruction_ssim")
        reconstruction = self._mean("reconstruction_mse")
        transforms = {name: self._transform(name, spreads) for name in self.transforms}
        return Metrics(
            images=len(self.names),
            reconstruction_mse=reconstruction,
            reconstruction_psnr=psnr(reconstruction),
            reconstruction_ssim=self._maybe("reconstruction_ssim"),
            transforms=transforms,
            per_image=self.per_image,
            names=self.names,
            reconstruction_ms_ssim=self._maybe("reconstruction_ms_ssim"),
            groups={name: self._group(name, found) for name, found in _groups(transforms)},
            spreads=spreads,
            reconstruction_feature_cosine=self._maybe("reconstruction/feature_cosine"),
            reconstruction_rfid=self._rfid("reconstruction"),
            reconstruction_lpips=self._maybe("reconstruction/lpips"),
            **more,
        )

    def _transform(self, name: str, spreads: dict[str, Spread]) -> TransformMetrics:
        error = self._mean(f"round_trip_mse/{name}")
        reference = self._mean(f"reconstruction_mse/{name}")
        ceiling = self._maybe(f"ceiling_mse/{name}")
        spreads[f"round_trip_psnr/{name}"] = self._psnr([f"round_trip_mse/{name}"])
        self._spread(spreads, f"round_trip_ssim/{name}")
        spreads[f"equivariance_gap_db/{name}"] = self._gap(name)
        self._spread(spreads, f"encoder_relative_error/{name}", larger_is_better=False)
        return TransformMetrics(
            round_trip_mse=error,
            round_trip_psnr=psnr(error),
            round_trip_ssim=self._maybe(f"round_trip_ssim/{name}"),
            equivariance_gap_db=_difference(psnr(reference), psnr(error)),
            encoder_relative_error=self._mean(f"encoder_relative_error/{name}"),
            round_trip_ms_ssim=self._maybe(f"round_trip_ms_ssim/{name}"),
            encoder_cosine=self._mean(f"encoder_cosine/{name}"),
            ceiling_mse=ceiling,
            ceiling_psnr=None if ceiling is None else psnr(ceiling),
            reconstruction_psnr=psnr(reference),
            round_trip_feature_cosine=self._maybe(f"round_trip/{name}/feature_cosine"),
            round_trip_rfid=self._rfid(f"round_trip/{name}"),
            round_trip_lpips=self._maybe(f"round_trip/{name}/lpips"),
        )

    def _group(self, name: str, found: Mapping[str, TransformMetrics]) -> GroupMetrics:
        error = math.fsum(one.round_trip_mse for one in found.values()) / len(found)
        reference = math.fsum(self._mean(f"reconstruction_mse/{t}") for t in found) / len(found)
        worst = max(found, key=lambda t: found[t].equivariance_gap_db)
        return GroupMetrics(
            elements=list(found),
            round_trip_mse=error,
            round_trip_psnr=psnr(error),
            equivariance_gap_db=_difference(psnr(reference), psnr(error)),
            worst_gap_db=found[worst].equivariance_gap_db,
            worst_element=worst,
        )

    def _mean(self, key: str) -> float:
        values = self.per_image[key]
        return math.fsum(values) / len(values)

    def _maybe(self, key: str) -> float | None:
        return self._mean(key) if key in self.per_image else None

    def _rfid(self, key: str) -> float | None:
        if f"{key}/seen" not in self.features or len(self.names) < 2:
            return None
        return frechet_distance(self.features[f"{key}/seen"], self.features[f"{key}/target"])

    def _psnr(self, keys: list[str]) -> Spread:
        return self._of(keys, lambda means: psnr_of(means[..., 0]), larger_is_better=True)

    def _gap(self, name: str) -> Spread:
        keys = [f"reconstruction_mse/{name}", f"round_trip_mse/{name}"]
        return self._of(
            keys,
            lambda means: psnr_of(means[..., 0]) - psnr_of(means[..., 1]),
            larger_is_better=False,
        )

    def _spread(
        self, spreads: dict[str, Spread], key: str, *, larger_is_better: bool = True
    ) -> None:
        if key in self.per_image:
            spreads[key] = self._of(
                [key], lambda means: means[..., 0], larger_is_better=larger_is_better
            )

    def _of(self, keys: list[str], number: Any, *, larger_is_better: bool) -> Spread:
        return self.resampling.spread(keys, number, larger_is_better=larger_is_better)


def _groups(
    transforms: Mapping[str, TransformMetrics],
) -> Iterator[tuple[str, dict[str, TransformMetrics]]]:
    """The groups with more than one element beside the identity, all of which were measured."""
    for name in list_groups():
        members = [t.name for t in get_group(name) if t.name != "identity"]
        if len(members) > 1 and all(member in transforms for member in members):
            yield name, {member: transforms[member] for member in members}


def _difference(a: float, b: float) -> float:
    # Two infinite PSNRs, a perfect VAE, have no gap.
    return 0.0 if a == b else a - b
