"""Feature metrics with any backbone: cosine, Fréchet distance (rFID), LPIPS."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Union, get_args

import torch
from torch import Tensor

from equivae.errors import InputError, first_line
from equivae.options import quoted

__all__ = [
    "Backbone",
    "BackboneLike",
    "FeatureSums",
    "Gaussian",
    "LpipsLike",
    "check_backbone",
    "check_distance",
    "frechet_distance",
    "resolve_features",
    "resolve_lpips",
]

Backbone = Callable[[Tensor], Tensor]
Distance = Callable[[Tensor, Tensor], Tensor]
BackboneLike = Union[Backbone, Literal["inception"]]
Net = Literal["alex", "vgg", "squeeze"]
LpipsLike = Union[Distance, Net]


@dataclass
class FeatureSums:
    """Sums of features and of their products; those of two processes are added."""

    count: int = 0
    total: Tensor | None = None
    products: Tensor | None = None

    def add(self, features: Tensor) -> None:
        values = features.double().cpu()
        self.merge(FeatureSums(len(values), values.sum(0), values.T @ values))

    def merge(self, other: FeatureSums) -> None:
        self.count += other.count
        for name in ("total", "products"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if theirs is not None:
                setattr(self, name, theirs if mine is None else mine + theirs)

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Mean and (unbiased) covariance."""
        assert self.total is not None
        assert self.products is not None
        mean = self.total / self.count
        spread = self.products - self.count * mean.outer(mean)
        return mean, spread / max(self.count - 1, 1)


class Gaussian(Protocol):
    """What has a mean and a covariance."""

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Mean `(D,)` and covariance `(D, D)`."""


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Fréchet distance between the Gaussians of two sets of features (Heusel et al., 2017).

    `‖μ₁ - μ₂‖² + tr(C₁ + C₂ - 2 (C₁ C₂)^½)`; the trace of the root from the eigenvalues of the symmetric
    `C₁^½ C₂ C₁^½`, which has those of `C₁ C₂`. NaN if a feature is NaN or infinite; `InputError` where both
    have different features.
    """
    (mean_a, cov_a), (mean_b, cov_b) = a.gaussian(), b.gaussian()
    if mean_a.shape != mean_b.shape:
        raise InputError(
            f"features of {len(mean_a)} and of {len(mean_b)} numbers cannot be compared; take the statistics "
            "of one network."
        )
    if not all(part.isfinite().all() for part in (mean_a, cov_a, mean_b, cov_b)):
        return math.nan
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(0.0, float(distance))


def check_backbone(name: str, features: Any) -> None:
    """`InputError` unless it is a callable, a name that is known, or nothing."""
    if features is not None and not callable(features) and features != "inception":
        raise InputError(
            f"{name} must be 'inception' or a callable from images (B, 3, H, W) in [0, 1] to features "
            f"(B, D), got {quoted(features)}."
        )


def check_distance(name: str, lpips: Any) -> None:
    """`InputError` unless it is a callable, a name that is known, or nothing."""
    if lpips is not None and not callable(lpips) and lpips not in get_args(Net):
        raise InputError(
            f"{name} must be one of {', '.join(get_args(Net))} or a callable from two batches of images in "
            f"[0, 1] to distances (B,), got {quoted(lpips)}."
        )


def resolve_features(features: BackboneLike | None, device: torch.device) -> Backbone | None:
    """A callable `features(images) -> (B, D)`; `"inception"` is torchmetrics' FID network.

    Raises `InputError` when that is not installed or its weights cannot be had.
    """
    check_backbone("features", features)
    if features is None or callable(features):
        return features
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance

        network = FrechetInceptionDistance(feature=2048).inception.to(device)
    except Exception as error:
        raise InputError(
            "features='inception' needs torchmetrics, torch-fidelity and the network's weights: pip install "
            "'equivae[metrics]' and run it with a connection, over which the weights come once, or pass a "
            f"callable of your own ({first_line(error)})."
        ) from error
    return lambda images: network(images.mul(255).round().byte())  # type: ignore[no-any-return]


def resolve_lpips(lpips: LpipsLike | None, device: torch.device) -> Distance | None:
    """A callable `lpips(a, b) -> (B,)`; a name is a network of torchmetrics' LPIPS.

    Raises `InputError` when that is not installed or its weights cannot be had.
    """
    check_distance("lpips", lpips)
    if lpips is None or callable(lpips):
        return lpips
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        network: Any = LearnedPerceptualImagePatchSimilarity(net_type=lpips).net.to(device)
    except Exception as error:
        raise InputError(
            f"lpips={lpips!r} needs torchmetrics, torchvision and the network's weights: pip install "
            "'equivae[metrics]' and run it with a connection, over which the weights come once, or pass a "
            f"callable of your own ({first_line(error)})."
        ) from error
    return lambda a, b: network(a, b, normalize=True).flatten()  # type: ignore[no-any-return]


def check_features(values: Any, count: int) -> Tensor:
    """Features `(B, D)`, or `InputError`."""
    if not isinstance(values, Tensor) or values.ndim != 2 or len(values) != count:
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"features must return a tensor ({count}, D) here, got {shape}.")
    return values.float()
