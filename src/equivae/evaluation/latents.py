"""Statistics of the latents, summed batch by batch and process by process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from equivae.evaluation.results import LatentStatistics
from equivae.evaluation.spectrum import block_energy, profile_of, spectrum_of

__all__ = ["LatentSums", "relative_drift"]

Latents = dict[int, Tensor]
_SUMS = ("total", "products", "cubes", "fourths", "steps", "energy", "image_energy")


@dataclass
class LatentSums:
    """Sums from which all statistics follow; those of two processes are added."""

    cells: int = 0
    total: Tensor | None = None
    products: Tensor | None = None
    cubes: Tensor | None = None
    fourths: Tensor | None = None
    steps: Tensor | None = None  # squared differences of neighbours, per channel
    neighbours: int = 0
    images: int = 0
    energy: Tensor | None = None
    image_energy: Tensor | None = None

    def add(self, x: Tensor, z: Tensor) -> None:
        """The latents `(B, c, ..., h, w)` of images `(B, C, ..., H, W)`."""
        flat = z.transpose(0, 1).flatten(1).double()
        steps, neighbours = torch.zeros_like(flat[:, 0]), 0
        for axis in range(2, z.ndim):
            if z.shape[axis] > 1:
                step = z.diff(dim=axis).transpose(0, 1).flatten(1).double()
                steps, neighbours = steps + step.square().sum(1), neighbours + step.shape[1]
        pictures = z.ndim >= 4
        self.merge(
            LatentSums(
                cells=flat.shape[1],
                total=flat.sum(1).cpu(),
                products=(flat @ flat.T).cpu(),
                cubes=flat.pow(3).sum(1).cpu(),
                fourths=flat.pow(4).sum(1).cpu(),
                steps=steps.cpu(),
                neighbours=neighbours,
                images=x.shape[0],
                energy=block_energy(z).cpu() * x.shape[0] if pictures else None,
                image_energy=block_energy(x).cpu() * x.shape[0] if pictures else None,
            )
        )

    def merge(self, other: LatentSums) -> None:
        for name in ("cells", "neighbours", "images"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _SUMS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if theirs is not None and (mine is None or mine.shape == theirs.shape):
                setattr(self, name, theirs if mine is None else mine + theirs)

    def moments(self) -> tuple[Tensor, Tensor]:
        """The channels' covariance `(c, c)` and fourth central moments `(c,)`."""
        assert self.total is not None
        assert self.products is not None
        assert self.cubes is not None
        assert self.fourths is not None
        mean, products = self.total / self.cells, self.products / self.cells
        third, fourth = self.cubes / self.cells, self.fourths / self.cells
        squares = products.diagonal()
        central = fourth - 4 * mean * third + 6 * mean**2 * squares - 3 * mean**4
        return products - mean.outer(mean), central

    def statistics(self, drifts: list[float]) -> LatentStatistics:
        assert self.total is not None
        assert self.steps is not None
        mean = self.total / self.cells
        covariance, _ = self.moments()
        variances = covariance.diagonal().clamp_min(0)
        power = float(covariance.square().sum())
        variance, step = float(variances.sum()), float(self.steps.sum())
        varies = variance > 1e-12 * max(float(mean.square().sum()), 1e-12)
        correlation = 1 - step / max(self.neighbours, 1) / (2 * variance) if varies else 1.0
        dimension = variance**2 / power if varies else 0.0
        if not math.isfinite(variance):  # no constant, whose variance is 0
            correlation = dimension = math.nan
        return LatentStatistics(
            channel_means=mean.tolist(),
            channel_deviations=variances.sqrt().tolist(),
            effective_dimension=dimension,
            smoothness=correlation,
            spectrum=[] if self.energy is None else spectrum_of(self.energy),
            image_spectrum=[] if self.image_energy is None else spectrum_of(self.image_energy),
            profile=[] if self.energy is None else profile_of(self.energy),
            image_profile=[] if self.image_energy is None else profile_of(self.image_energy),
            drift=sum(drifts) / len(drifts) if drifts else None,
            drift_images=len(drifts),
        )


def relative_drift(z: Tensor, index: int, baseline: Mapping[int, Tensor]) -> float | None:
    """How far the latent `(c, ..., h, w)` of an image lies from the baseline's, if that is known."""
    other = baseline.get(index)
    if other is None or other.shape != z.shape:
        return None
    other = other.to(z.device, torch.float32)
    return float((z.float() - other).norm() / other.norm().clamp_min(1e-12))
