"""From the numbers of every image to those of all: means, intervals, groups."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from equivae.evaluation.features import FeatureSums, Gaussian, frechet_distance
from equivae.evaluation.latent_metrics import FlatField, Moments, OfFlatField, PerImage, chosen
from equivae.evaluation.latents import LatentSums
from equivae.evaluation.options import MeasureOptions
from equivae.evaluation.protocols import mean_of
from equivae.evaluation.quantities import quantities
from equivae.evaluation.results import (
    GroupMetrics,
    Metrics,
    ProtocolMetrics,
    Spread,
    TransformMetrics,
)
from equivae.evaluation.statistics import Resampling
from equivae.transforms import get_group, list_groups
from equivae.units import difference_db, psnr, rank

__all__ = ["Found", "Summary"]

_MAY_BE_INFINITE = ("imagenet/", "latent/shift_psnr")


@dataclass
class Found:
    """What one process found: numbers by name and image, sums over its images, and times."""

    numbers: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    latents: LatentSums = field(default_factory=LatentSums)
    features: dict[str, FeatureSums] = field(default_factory=lambda: defaultdict(FeatureSums))
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, values: Tensor | None, indices: Sequence[int]) -> None:
        if values is not None:
            self.numbers[name].update(zip(indices, values.float().tolist(), strict=True))

    def merge(self, other: Found) -> None:
        for name, values in other.numbers.items():
            self.numbers[name].update(values)
        self.latents.merge(other.latents)
        for name, sums in other.features.items():
            self.features[name].merge(sums)
        for name, times in other.seconds.items():
            self.seconds[name] += times


class Summary:
    """From the numbers of every image to those of all."""

    def __init__(
        self,
        found: Found,
        names: Sequence[str],
        transforms: Mapping[str, str],
        options: MeasureOptions,
        reference: Gaussian | None = None,
        flat: FlatField | None = None,
        plain: Mapping[str, str] | None = None,
    ) -> None:
        self.names, self.transforms, self.plain = list(names), transforms, plain or {}
        self.imagenet, self.reference = options.protocol == "imagenet", reference
        self.latents, self.level, self.flat = found.latents, options.metrics, flat
        self.features, self.seconds = found.features, found.seconds
        count = len(self.names)
        self.per_image = {
            key: [values[i] for i in range(count)]
            for key, values in found.numbers.items()
            if len(values) == count
        }
        self.resampling = Resampling(self.names, self.per_image, options.seed)

    def metrics(self, **more: Any) -> Metrics:
        reconstruction = self._mean("reconstruction_mse")
        transforms = {name: self._transform(name) for name in self.transforms}
        protocol = None
        if self.imagenet:
            protocol = self._protocol("reconstruction", "reconstruction", "")
        return Metrics(
            images=len(self.names),
            reconstruction_mse=reconstruction,
            reconstruction_psnr=psnr(reconstruction),
            reconstruction_ssim=self._maybe("reconstruction_ssim"),
            transforms=transforms,
            per_image=self.per_image,
            names=self.names,
            reconstruction_ms_ssim=self._maybe("reconstruction_ms_ssim"),
            groups={name: self._group(found) for name, found in _groups(transforms)},
            spreads=self._spreads(),
            non_finite=self._non_finite(),
            reconstruction_feature_cosine=self._maybe("reconstruction/feature_cosine"),
            reconstruction_rfid=None if self.imagenet else self._rfid("reconstruction"),
            reconstruction_lpips=None if self.imagenet else self._maybe("reconstruction/lpips"),
            imagenet=protocol,
            latent_metrics=self._latent_metrics(),
            **more,
        )

    def _transform(self, name: str) -> TransformMetrics:
        error = self._mean(f"round_trip_mse/{name}")
        reference = self._mean(f"reconstruction_mse/{name}")
        ceiling = self._maybe(f"ceiling_mse/{name}")
        reencoded = self._maybe(f"reencoded_mse/{name}")
        protocol, trip = None, f"round_trip/{name}"
        if self.imagenet:
            protocol = self._protocol(trip, "round_trip", f"/{name}")
        return TransformMetrics(
            round_trip_mse=error,
            round_trip_psnr=psnr(error),
            round_trip_ssim=self._maybe(f"round_trip_ssim/{name}"),
            equivariance_gap_db=difference_db(psnr(reference), psnr(error)),
            encoder_relative_error=self._mean(f"encoder_relative_error/{name}"),
            round_trip_ms_ssim=self._maybe(f"round_trip_ms_ssim/{name}"),
            encoder_cosine=self._mean(f"encoder_cosine/{name}"),
            ceiling_mse=ceiling,
            ceiling_psnr=None if ceiling is None else psnr(ceiling),
            reconstruction_psnr=psnr(reference),
            round_trip_feature_cosine=self._maybe(f"{trip}/feature_cosine"),
            round_trip_rfid=None if self.imagenet else self._rfid(trip),
            round_trip_lpips=None if self.imagenet else self._maybe(f"{trip}/lpips"),
            reencoded_mse=reencoded,
            reencoded_psnr=None if reencoded is None else psnr(reencoded),
            latent_op_seconds=self._seconds(f"latent_op/{name}"),
            reencoded_seconds=self._seconds(f"reencoded/{name}"),
            latent_op=self.transforms[name],
            plain_transform=self.plain.get(name),
            imagenet=protocol,
        )

    def _protocol(self, features: str, kind: str, which: str) -> ProtocolMetrics:
        """The imagenet protocol's numbers; `features` is where those of the networks are kept."""
        gap_key = f"imagenet/gap_db{which}"
        return ProtocolMetrics(
            psnr=mean_of(self.per_image[f"imagenet/{kind}_psnr{which}"]),
            ssim=self._maybe(f"imagenet/{kind}_ssim{which}"),
            lpips=self._maybe(f"{features}/lpips"),
            rfid=self._rfid(features, None if which else self.reference),
            gap_db=mean_of(self.per_image[gap_key]) if which else None,
        )

    def _latent_metrics(self) -> dict[str, float]:
        """By name; without those that the latents are too small for."""
        values: dict[str, float] = {}
        moments = self.latents.moments()
        for name, metric in chosen(self.level).items():
            key = f"latent/{name}"
            if isinstance(metric, Moments):
                values[name] = metric.of(*moments)
            elif isinstance(metric, OfFlatField) and self.flat is not None:
                values[name] = getattr(self.flat, metric.part)
            elif isinstance(metric, PerImage) and key in self.per_image:
                values[name] = metric.total(mean_of(self.per_image[key]))
        return values

    def _group(self, found: Mapping[str, TransformMetrics]) -> GroupMetrics:
        error = math.fsum(one.round_trip_mse for one in found.values()) / len(found)
        reference = math.fsum(self._mean(f"reconstruction_mse/{t}") for t in found) / len(found)
        worst = max(found, key=lambda t: rank(found[t].equivariance_gap_db, larger_is_better=False))
        return GroupMetrics(
            elements=list(found),
            round_trip_mse=error,
            round_trip_psnr=psnr(error),
            equivariance_gap_db=difference_db(psnr(reference), psnr(error)),
            worst_gap_db=found[worst].equivariance_gap_db,
            worst_element=worst,
        )

    def _non_finite(self) -> dict[str, int]:
        counts = {
            key: sum(not _is_sound(key, value) for value in values)
            for key, values in self.per_image.items()
        }
        return {key: count for key, count in counts.items() if count}

    def _mean(self, key: str) -> float:
        values = self.per_image[key]
        if not all(map(math.isfinite, values)):
            return math.nan  # infinite errors too: fsum refuses their sum
        return math.fsum(values) / len(values)

    def _maybe(self, key: str) -> float | None:
        return self._mean(key) if key in self.per_image else None

    def _seconds(self, key: str) -> float | None:
        return statistics.median(self.seconds[key]) if key in self.seconds else None

    def _rfid(self, key: str, reference: Gaussian | None = None) -> float | None:
        if f"{key}/seen" not in self.features or len(self.names) < 2:
            return None
        seen, target = (self.features[f"{key}/{part}"] for part in ("seen", "target"))
        return frechet_distance(seen, reference or target)

    def _spreads(self) -> dict[str, Spread]:
        """Of everything but what is infinite for an image that came back as it was."""
        found = {}
        for one in quantities(self.per_image, self.transforms):
            values = [value for column in one.columns for value in self.per_image[column]]
            if not any(map(math.isinf, values)):
                found[one.key] = self.resampling.spread(
                    one.columns,
                    one.number,
                    larger_is_better=one.larger_is_better,
                    within=one.within,
                )
        return found


def _is_sound(key: str, value: float) -> bool:
    """A number, or the infinite PSNR of an image that came back as it was."""
    return math.isfinite(value) or (key.startswith(_MAY_BE_INFINITE) and math.isinf(value))


def _groups(
    transforms: Mapping[str, TransformMetrics],
) -> Iterator[tuple[str, dict[str, TransformMetrics]]]:
    """The groups with more than one element beside the identity, all of which were measured."""
    for name in list_groups():
        members = [t.name for t in get_group(name) if t.name != "identity"]
        if len(members) > 1 and all(member in transforms for member in members):
            yield name, {member: transforms[member] for member in members}
