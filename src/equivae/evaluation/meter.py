"""Measuring batches: every number of every image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.autoencoder.at_once import decode_in_calls, encode_in_calls
from equivae.errors import InputError
from equivae.evaluation.features import check_features
from equivae.evaluation.latent_metrics import PerImage, chosen
from equivae.evaluation.options import MeasureOptions
from equivae.evaluation.protocols import Networks, eight_bit, imagenet_numbers, psnr_of_each
from equivae.evaluation.quality import mean_inside, similarity
from equivae.evaluation.roundtrip import (
    Reconstruction,
    RoundTrip,
    fix_draws,
    reconstruct,
    reencode,
    seed_of,
    travel,
)
from equivae.evaluation.summary import Found
from equivae.transforms import Transform
from equivae.transforms.base import mask_of_cells
from equivae.units import difference_db

__all__ = ["Meter"]


class Meter:
    """Measures batches, one by one."""

    def __init__(
        self, vae: Autoencoder, transforms: Sequence[Transform], options: MeasureOptions
    ) -> None:
        self.vae, self.transforms, self.options = vae, transforms, options
        self.networks = Networks(options, vae.device)
        self.imagenet = options.protocol == "imagenet"
        self.latent_metrics = [
            one for one in chosen(options.metrics).values() if isinstance(one, PerImage)
        ]
        self.found = Found()

    def see(self, x: Tensor, indices: Sequence[int]) -> Reconstruction:
        batch, found = reconstruct(self.vae, x), self.found
        found.latents.add(x, batch.z)
        found.add("reconstruction_mse", batch.error, indices)
        ssim, ms_ssim = similarity(batch.seen, batch.plain)
        found.add("reconstruction_ssim", ssim, indices)
        found.add("reconstruction_ms_ssim", ms_ssim, indices)
        features = self._features("reconstruction", batch.seen, batch.plain, indices)
        if self.imagenet:
            for key, values in imagenet_numbers(batch.seen, batch.plain).items():
                found.add(f"imagenet/reconstruction_{key}", values, indices)
        seeds = [seed_of(self.options.seed, index) for index in indices]
        for metric in self.latent_metrics:
            found.add(f"latent/{metric.name}", metric.of(self.vae, batch, seeds), indices)
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
        encoded = encode_in_calls(self.vae, trip.turned)
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
            best = trip.compared(decode_in_calls(self.vae, encoded, trip.turned[0, 0].numel()))
            error = mean_inside((best - trip.target).square(), trip.mask)
            found.add(f"ceiling_mse/{name}", error, indices)
        if self.options.reencode:
            self._reencode(batch, trip, name, indices)
        if self.imagenet:
            self._imagenet(trip, name, indices)
        if self.networks.any:
            seen = trip.seen
            if trip.mask is not None:
                seen = torch.where(trip.mask, seen, trip.target)
            # An exact round trip ends at the original, whose features are known.
            known = features if trip.target is batch.plain else None
            self._features(f"round_trip/{name}", seen, trip.target, indices, known)

    def _imagenet(self, trip: RoundTrip, name: str, indices: Sequence[int]) -> None:
        for key, values in imagenet_numbers(trip.seen, trip.target, trip.mask).items():
            self.found.add(f"imagenet/round_trip_{key}/{name}", values, indices)
        reference = psnr_of_each(trip.reconstruction, trip.target, trip.mask)
        trips = self.found.numbers[f"imagenet/round_trip_psnr/{name}"]
        gaps = [
            difference_db(one, trips[index])
            for one, index in zip(reference.tolist(), indices, strict=True)
        ]
        self.found.add(f"imagenet/gap_db/{name}", torch.tensor(gaps), indices)

    def _reencode(
        self, batch: Reconstruction, trip: RoundTrip, name: str, indices: Sequence[int]
    ) -> None:
        latent, seconds = reencode(self.vae, batch, trip.transform)
        picture = trip.compared(decode_in_calls(self.vae, latent, trip.turned[0, 0].numel()))
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
        lpips, backbone = self.networks.lpips, self.networks.features
        if lpips is not None:
            self.found.add(f"{name}/lpips", lpips(seen, target).flatten(), indices)
        if backbone is None:
            return None
        if self.imagenet:
            seen, target = eight_bit(seen) / 255, eight_bit(target) / 255
        count = len(indices)
        there = known if known is not None else check_features(backbone(target), count)
        here = check_features(backbone(seen), count)
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
