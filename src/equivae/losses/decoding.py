"""What the terms of an objective look at: the images of a step, their latents, and what these decode to.

Every term sees the same decodes, so that another term costs no other decode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.errors import InputError
from equivae.transforms import Transform, get_transform

__all__ = [
    "Contribution",
    "Decoded",
    "Decoding",
    "Part",
    "batch_parts",
    "draw_for_batch",
    "dual_parts",
    "in_shape_groups",
    "require_same_shape",
    "sampled_parts",
]


@dataclass(frozen=True)
class Part:
    """Some images of a batch, one transform, and the weight of their mean loss.

    Attributes:
        name: of its entry in `LossOutput.terms`.
        transform: with its parameters fixed for these images.
        rows: which images; `None` for all of them, in order.
        weight: of the loss that is averaged over these images.
        random: whether the transform was drawn, so that the next batch gets another.
    """

    name: str
    transform: Transform
    rows: Tensor | None
    weight: float
    random: bool = False

    def take(self, batch: Tensor) -> Tensor:
        return batch if self.rows is None else batch.index_select(0, self.rows)


@dataclass(frozen=True)
class Decoded:
    """A part and its images: `decoded` and `target` `(B, C, H, W)`, the target's validity mask or `None`."""

    part: Part
    decoded: Tensor
    target: Tensor
    mask: Tensor | None


@dataclass
class Decoding:
    """One step, decoded.

    Attributes:
        vae: the autoencoder that learns.
        images: `(B, C, H, W)` in [-1, 1].
        latents: `(B, c, h, w)`, what was decoded from; draws of the posterior where those are sampled.
        sampled: whether they are draws of the posterior.
        named: the transforms as they were asked for, whose names the terms carry.
        transforms: the same, placed on the autoencoder's geometry.
        generator: of the draws, a CPU generator.
        parts: what was decoded.
        posterior: mean and logarithm of the variance, each like the latents, where a term asked for them.
        hide: what the decoder gets of the latents, where it does not get all; see `LatentMasking`.
    """

    vae: Autoencoder
    images: Tensor
    latents: Tensor
    sampled: bool
    named: Sequence[Transform]
    transforms: Sequence[Transform]
    generator: torch.Generator | None
    parts: list[Decoded] = field(default_factory=list)
    posterior: tuple[Tensor, Tensor] | None = None
    hide: Callable[[Tensor, torch.Generator | None], Tensor] | None = None

    def modes(self) -> Tensor:
        """The latents without the noise of a draw, `(B, c, h, w)`."""
        if not self.sampled:
            return self.latents
        return self.gaussian()[0] if self.posterior else self.vae.encode(self.images)

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the images' posterior."""
        if self.posterior is None:
            self.posterior = self.vae.posterior(self.images)
        return self.posterior

    def decode(self, parts: Sequence[Part], call: Callable[[Tensor], Tensor]) -> None:
        """Fill `parts`: those whose latents have one shape share a call."""
        seen = self.latents if self.hide is None else self.hide(self.latents, self.generator)
        moved = [part.transform.latent(part.take(seen)) for part in parts]
        for part, image in zip(parts, in_shape_groups(moved, call), strict=True):
            source = part.take(self.images)
            target, mask = part.transform.pixel(source), part.transform.mask(source)
            require_same_shape(part.name, image, target)
            self.parts.append(Decoded(part, image, target, mask))


@dataclass(frozen=True)
class Contribution:
    """One summand of a loss: its name (`None` for one that is not shown), its value, and its weight."""

    name: str | None
    value: Tensor
    weight: float


def dual_parts(
    transforms: Sequence[Transform],
    batch: int,
    generator: torch.Generator | None,
    *,
    weight: float,
    reconstruction_weight: float,
) -> list[Part]:
    """Every transform beside the identity: `n + 1` decodes per image."""
    parts = []
    if reconstruction_weight or not (transforms and weight):
        parts = [Part("reconstruction", get_transform("identity"), None, reconstruction_weight)]
    for transform in transforms:
        drawn = transform.draw(batch, generator)
        name, share = f"equivariance/{transform.name}", weight / len(transforms)
        parts.append(Part(name, drawn, None, share, drawn is not transform))
    return parts


def sampled_parts(
    transforms: Sequence[Transform],
    images: Tensor,
    generator: torch.Generator | None,
    *,
    weight: float,
    reconstruction_weight: float,
    probability: float,
) -> list[Part]:
    """One decode per image: under one of the transforms with the given probability, else the identity."""
    batch, p = images.shape[0], probability
    # One uniform shared by strata keeps each sample's marginal and lowers the variance.
    offset = torch.rand((), generator=generator)
    place = (torch.randperm(batch, generator=generator) + offset) / batch
    if p > 0:
        drawn = ((place - (1 - p)) / p * len(transforms)).floor().long()
        drawn = drawn.clamp(max=len(transforms) - 1)
        choice = torch.where(place < 1 - p, torch.full_like(drawn, -1), drawn.clamp(min=0))
    else:
        choice = torch.full((batch,), -1)
    parts = []
    for index in range(-1, len(transforms)):
        rows = (choice == index).nonzero().flatten()
        share = len(rows) / batch
        if not share:
            continue
        rows = rows.to(images.device, non_blocking=True)
        if index < 0:
            identity = get_transform("identity")
            parts.append(
                Part("reconstruction", identity, rows, reconstruction_weight * share / (1 - p))
            )
        else:
            name = f"equivariance/{transforms[index].name}"
            fixed = transforms[index].draw(len(rows), generator)
            random = fixed is not transforms[index]
            parts.append(Part(name, fixed, rows, weight * share / p, random))
    return parts


def batch_parts(
    transforms: Sequence[Transform],
    batch: int,
    chosen: int | None,
    generator: torch.Generator | None,
    *,
    weight: float,
    reconstruction_weight: float,
    probability: float,
) -> list[Part]:
    """One decode per image, all of them under the transform of that index or, with `None`, the identity."""
    if chosen is None:
        share = reconstruction_weight / (1 - probability)
        return [Part("reconstruction", get_transform("identity"), None, share)]
    transform = transforms[chosen]
    drawn = transform.draw(batch, generator)
    name, share = f"equivariance/{transform.name}", weight / probability
    return [Part(name, drawn, None, share, drawn is not transform)]


def draw_for_batch(
    count: int, generator: torch.Generator | None, *, probability: float, image_scale: float
) -> tuple[int | None, bool]:
    """Which transform a whole batch is seen under, if any, and whether its images are made smaller."""
    if float(torch.rand((), generator=generator)) < probability:
        return int(torch.randint(count, (), generator=generator)), False
    return None, image_scale > 0 and float(torch.rand((), generator=generator)) < image_scale


def require_same_shape(term: str, decoded: Tensor, target: Tensor) -> None:
    if decoded.shape != target.shape:
        raise InputError(
            f"{term}: got {tuple(decoded.shape)} from the latent where {tuple(target.shape)} is wanted; "
            "the autoencoder does not keep this size, or the transform's two ops disagree."
        )


def in_shape_groups(batches: Sequence[Tensor], call: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """`call` on each batch, those of equal shape in one call."""
    results: dict[int, Tensor] = {}
    for shape in dict.fromkeys(batch.shape[1:] for batch in batches):
        members = [i for i, batch in enumerate(batches) if batch.shape[1:] == shape]
        joined = call(torch.cat([batches[i] for i in members]))
        sizes = [batches[i].shape[0] for i in members]
        results.update(zip(members, torch.split(joined, sizes), strict=True))
    return [results[i] for i in range(len(batches))]
