"""How equivariant a VAE is, and how well it reconstructs: the numbers, measured in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader

from equivae.autoencoder import (
    Autoencoder,
    check_images,
    check_transforms,
    layout_of,
    measuring,
)
from equivae.data.sources import ImageDataset, collate
from equivae.errors import InputError
from equivae.evaluation.features import check_features, resolve_features, resolve_lpips
from equivae.evaluation.latents import Latents, relative_drift
from equivae.evaluation.options import MeasureOptions
from equivae.evaluation.quality import mean_inside, similarity
from equivae.evaluation.results import Metrics, Panel, TransformMetrics
from equivae.evaluation.roundtrip import (
    Reconstruction,
    RoundTrip,
    fix_draws,
    reconstruct,
    reencode,
    seed_of,
    travel,
)
from equivae.evaluation.summary import Found, Summary
from equivae.evaluation.sweeps import measure_sweeps, sweep_images
from equivae.processes import process_state
from equivae.transforms import Transform
from equivae.transforms.base import mask_of_cells
from equivae.units import psnr

__all__ = ["MeasureOptions", "Metrics", "Panel", "TransformMetrics", "measure", "psnr"]

_KEPT_LATENTS = 256 * 2**20  # bytes of the baseline's latents held for the drift


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
        measuring(vae.module),
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
    found = Found()
    for part, some in gather_object([(meter.found, drifts)]):
        found.merge(part)
        drifts |= some
    sweeps = {}
    if options.sweep_samples and images[0].ndim == 3:
        swept = sweep_images(len(images), options.sweep_samples)
        with measuring(vae.module):
            sweeps = measure_sweeps(
                vae,
                [images[i][None] for i in swept],
                label=f"{label}: sweeps",
                progress=options.progress,
            )
    ordered = [drifts[index] for index in sorted(drifts)]
    summary = Summary(found, images.names, [t.name for t in transforms], options.seed)
    return summary.metrics(sweeps=sweeps, latents=found.latents.statistics(ordered))


class _Meter:
    """Measures batches, one by one."""

    def __init__(
        self, vae: Autoencoder, transforms: Sequence[Transform], options: MeasureOptions
    ) -> None:
        self.vae, self.transforms, self.options = vae, transforms, options
        self.backbone = resolve_features(options.features, vae.device)
        self.lpips = resolve_lpips(options.lpips, vae.device)
        self.found = Found()

    def see(self, x: Tensor, indices: Sequence[int]) -> Reconstruction:
        batch, found = reconstruct(self.vae, x), self.found
        found.latents.add(x, batch.z)
        found.add("reconstruction_mse", batch.error, indices)
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
        if self.options.reencode:
            self._reencode(batch, trip, name, indices)
        if self.backbone is not None or self.lpips is not None:
            seen = trip.seen
            if trip.mask is not None:
                seen = torch.where(trip.mask, seen, trip.target)
            # An exact round trip ends at the original, whose features are known.
            known = features if trip.target is batch.plain else None
            self._features(f"round_trip/{name}", seen, trip.target, indices, known)

    def _reencode(
        self, batch: Reconstruction, trip: RoundTrip, name: str, indices: Sequence[int]
    ) -> None:
        latent, seconds = reencode(self.vae, batch, trip.transform)
        picture = trip.compared(self.vae.decode(latent))
        error = mean_inside((picture - trip.target).square(), trip.mask)
        self.found.add(f"reencoded_mse/{name}", error, indices)
        self.found.seconds[f"latent_op/{name}"].append(trip.seconds)
        self.found.seconds[f"reencoded/{name}"].append(seconds)

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
    if own is not None:  # no cell to compare is no number
        relative = relative.where(cells.flatten(1).any(1), torch.nan)
    blank = (encoded.norm(dim=1) < 1e-12) & (expected.norm(dim=1) < 1e-12)
    cosine = F.cosine_similarity(encoded, expected, dim=1, eps=1e-12)
    return relative, torch.where(blank & ~relative.isnan(), 1.0, cosine + 0 * relative)
