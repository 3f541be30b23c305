"""The objective: reconstruction plus equivariance, around any autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from equivae.autoencoder import Autoencoder, check_transforms, layout_of
from equivae.autoencoder.modes import differentiable
from equivae.errors import EmptyMaskError, InputError, did_you_mean
from equivae.losses.reconstruction import (
    Reconstruction,
    ReconstructionLike,
    masked,
    mse,
    resolve_reconstruction,
)
from equivae.transforms import Transform, get_transform, resolve_transforms
from equivae.transforms.base import mask_of_cells
from equivae.transforms.groups import TransformsLike

__all__ = ["EquivarianceLoss", "LossOutput", "Schedule"]

Schedule = Literal["dual", "sampled"]


@dataclass
class LossOutput:
    """What a loss call gives.

    Attributes:
        loss: the scalar to differentiate.
        terms: every part of it before its weight, detached scalars: `"reconstruction"`,
            `"equivariance/rot180"`, `"encoder/rot180"`. Under the sampled schedule a transform that no
            sample of the batch drew has no term, nor has a random one whose draw left nothing to compare.
    """

    loss: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class _Part:
    """Some samples of the batch, one transform, and the weight of their mean loss.

    `random` says whether the transform was drawn, so that the next batch gets another.
    """

    name: str
    transform: Transform
    rows: Tensor | None  # None: all of them, in order
    weight: float
    random: bool = False


class EquivarianceLoss:
    r"""Reconstruction loss plus equivariance loss.

    With `R` the reconstruction loss, `z = E(x)` and `n` transforms,

    .. math:: L = w_r\, R(D(z), x) + \frac{w}{n} \sum_t R(D(\rho_t z), T_t x)
                + \frac{w_e}{n} \sum_t \frac{\lVert E(T_t x) - \rho_t z \rVert^2}{\lVert z \rVert^2}

    With one transform, `w = w_r = 1` and `w_e = 0` this is the published 180° objective.

    Two schedules have this expectation. `"dual"` decodes every transform beside the identity: `n + 1`
    decodes per image. `"sampled"` decodes each image once, under a transform with the given
    probability `p` (each as likely as the others) and else under the identity; the samples are
    weighted by `w / p` and `w_r / (1 - p)`. (EQ-VAE, arXiv 2502.09509, eq. 6, draws so with p = 0.5.)
    The draw is systematic: of a batch of 8 with p = 0.5, four samples are transformed.

    Args:
        transforms: names, groups such as `"d4"`, transforms, or a list of those. An empty list leaves
            the plain reconstruction loss. Random transforms are drawn anew at every call.
        weight: `w`.
        reconstruction: `R`: `"mse"`, `"l1"`, or any callable `(decoded, target) -> loss` on images
            `(B, C, H, W)` in [-1, 1] (or videos, or audio) that averages over pixels.
        reconstruction_weight: `w_r`.
        schedule: `"dual"` or `"sampled"`.
        probability: `p`, for the sampled schedule.
        encoder_weight: `w_e`, the encoder-side term.
        sample_posterior: encode to a draw from the posterior instead of its mode.
        chunk_size: images per decoder call at most; `None` decodes all of a step at once.

    Raises `InputError` for an unknown name or an option outside its range.

    ```python
    import torch

    import equivae

    vae = equivae.zoo.load()
    loss_fn = equivae.EquivarianceLoss(["rot180", "hflip"], weight=1.0)
    out = loss_fn(vae, torch.rand(2, 3, 64, 64) * 2 - 1)
    out.loss.backward()
    assert list(out.terms) == ["reconstruction", "equivariance/rot180", "equivariance/hflip"]
    ```
    """

    def __init__(
        self,
        transforms: TransformsLike,
        *,
        weight: float = 1.0,
        reconstruction: ReconstructionLike = "mse",
        reconstruction_weight: float = 1.0,
        schedule: Schedule = "dual",
        probability: float = 0.5,
        encoder_weight: float = 0.0,
        sample_posterior: bool = False,
        chunk_size: int | None = None,
    ) -> None:
        if schedule not in get_args(Schedule):
            known = get_args(Schedule)
            raise InputError(f"unknown schedule {schedule!r}.{did_you_mean(str(schedule), known)}")
        if not 0.0 <= probability <= 1.0:
            raise InputError(f"probability must lie in [0, 1], got {probability}.")
        for name, value in (
            ("weight", weight),
            ("reconstruction_weight", reconstruction_weight),
            ("encoder_weight", encoder_weight),
        ):
            if not value >= 0:
                raise InputError(f"{name} must not be negative, got {value}.")
        if chunk_size is not None and chunk_size < 1:
            raise InputError(f"chunk_size must be at least 1, got {chunk_size}.")
        self.transforms = resolve_transforms(transforms)
        self.weight = weight
        self.reconstruction = resolve_reconstruction(reconstruction)
        self.reconstruction_weight = reconstruction_weight
        self.schedule = schedule
        self.probability = probability
        self.encoder_weight = encoder_weight
        self.sample_posterior = sample_posterior
        self.chunk_size = chunk_size
        self._identity = get_transform("identity")

    def __call__(
        self,
        vae: nn.Module | Autoencoder,
        images: Tensor,
        *,
        latents: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> LossOutput:
        """The loss of a batch.

        Args:
            vae: the autoencoder, as a module or as an `Autoencoder`.
            images: `(B, C, H, W)`, videos `(B, C, T, H, W)` or audio `(B, C, T)`, in [-1, 1].
            latents: `E(images)` when it is known already, as with a frozen encoder.
            generator: a CPU generator for the draws of the sampled schedule and of the posterior.
        """
        autoencoder = vae if isinstance(vae, Autoencoder) else Autoencoder(vae)
        images = differentiable(images)
        if latents is None:
            latents = autoencoder.encode(images, sample=self.sample_posterior, generator=generator)
        transforms = _placed(self.transforms, autoencoder, images, latents)
        if self.schedule == "sampled" and transforms:
            parts = self._sampled_parts(transforms, images, generator)
        else:
            parts = self._dual_parts(transforms, images.shape[0], generator)

        moved = [part.transform.latent(_take(latents, part.rows)) for part in parts]
        decoded = _in_shape_groups(
            moved, lambda batch: autoencoder.decode(batch, chunk_size=self.chunk_size)
        )
        terms: dict[str, Tensor] = {}
        loss = latents.new_zeros((), dtype=torch.float32)
        for part, image in zip(parts, decoded, strict=True):
            source = _take(images, part.rows)
            target, mask = part.transform.pixel(source), part.transform.mask(source)
            _require_same_shape(part.name, image, target)
            value = _compared(part.name, part.random, self.reconstruction, image, target, mask)
            if value is None:
                loss = (
                    loss + 0.0 * image.float().mean()
                )  # every weight has its gradient, of nothing
                continue
            terms[part.name] = value.detach()
            loss = loss + part.weight * value
        if self.encoder_weight:
            drawn = [t.draw(images.shape[0], generator) for t in transforms]
            random = [a is not b for a, b in zip(drawn, transforms, strict=True)]
            loss = loss + self._encoder_side(autoencoder, drawn, random, images, latents, terms)
        return LossOutput(loss, terms)

    def check_size(self, height: int, width: int) -> None:
        """Raise `InputError` for non-square images whose axes the sampled schedule would mix."""
        turning = [t.name for t in self.transforms if t.swaps_axes]
        if self.schedule == "sampled" and height != width and turning:
            raise InputError(
                f"the sampled schedule cannot mix {', '.join(turning)} with others in one batch of "
                f"non-square images ({height}x{width}), since they exchange height and width; crop to "
                'squares or use schedule="dual".'
            )

    def _dual_parts(
        self, transforms: Sequence[Transform], batch: int, generator: torch.Generator | None
    ) -> list[_Part]:
        parts = [_Part("reconstruction", self._identity, None, self.reconstruction_weight)]
        for transform in transforms:
            share = self.weight / len(transforms)
            drawn = transform.draw(batch, generator)
            name = f"equivariance/{transform.name}"
            parts.append(_Part(name, drawn, None, share, drawn is not transform))
        return parts

    def _sampled_parts(
        self,
        transforms: Sequence[Transform],
        images: Tensor,
        generator: torch.Generator | None,
    ) -> list[_Part]:
        batch, p = images.shape[0], self.probability
        self.check_size(images.shape[-2], images.shape[-1])
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
                weight = self.reconstruction_weight * share / (1 - p)
                parts.append(_Part("reconstruction", self._identity, rows, weight))
            else:
                name = f"equivariance/{transforms[index].name}"
                fixed = transforms[index].draw(len(rows), generator)
                random = fixed is not transforms[index]
                parts.append(_Part(name, fixed, rows, self.weight * share / p, random))
        return parts

    def _encoder_side(
        self,
        autoencoder: Autoencoder,
        transforms: Sequence[Transform],
        random: Sequence[bool],
        images: Tensor,
        latents: Tensor,
        terms: dict[str, Tensor],
    ) -> Tensor:
        power = latents.detach().float().square().mean().clamp_min(1e-12)
        encoded = _in_shape_groups([t.pixel(images) for t in transforms], autoencoder.encode)
        total = latents.new_zeros((), dtype=torch.float32)
        every = zip(self.transforms, transforms, random, encoded, strict=True)
        for named, transform, is_random, seen in every:
            name, moved = f"encoder/{named.name}", transform.latent(latents)
            _require_same_shape(name, moved, seen)
            mask = transform.mask(images)
            inside = None if mask is None else mask_of_cells(mask, seen.shape[-2:])
            value = _compared(name, is_random, mse, seen, moved, inside)
            if value is None:
                continue
            error = value / power
            terms[name] = error.detach()
            total = total + self.encoder_weight / len(transforms) * error
        return total


def _placed(
    transforms: Sequence[Transform], autoencoder: Autoencoder, images: Tensor, latents: Tensor
) -> list[Transform]:
    """The transforms for this autoencoder. The factor of images needs no probe: the shapes tell it."""
    if images.ndim == 4:
        factor = max(1, images.shape[-1] // latents.shape[-1])
        return [t.at_factor(factor) for t in transforms]
    check_transforms(transforms, layout_of(images), autoencoder, images.shape[0])
    return [autoencoder.place(t) for t in transforms]


def _compared(
    term: str,
    random: bool,
    loss: Reconstruction,
    seen: Tensor,
    target: Tensor,
    mask: Tensor | None,
) -> Tensor | None:
    """The loss inside the mask; `None` where a draw left nothing inside. A fixed transform always would."""
    try:
        return masked(loss, seen, target, mask)
    except EmptyMaskError as error:
        if random:
            return None
        raise EmptyMaskError(f"{term}: {error}") from error


def _require_same_shape(term: str, decoded: Tensor, target: Tensor) -> None:
    if decoded.shape != target.shape:
        raise InputError(
            f"{term}: got {tuple(decoded.shape)} from the latent where {tuple(target.shape)} is wanted; "
            "the autoencoder does not keep this size, or the transform's two ops disagree."
        )


def _take(batch: Tensor, rows: Tensor | None) -> Tensor:
    return batch if rows is None else batch.index_select(0, rows)


def _in_shape_groups(batches: Sequence[Tensor], call: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """`call` on each batch, those of equal shape in one call."""
    results: dict[int, Tensor] = {}
    for shape in dict.fromkeys(batch.shape[1:] for batch in batches):
        members = [i for i, batch in enumerate(batches) if batch.shape[1:] == shape]
        joined = call(torch.cat([batches[i] for i in members]))
        sizes = [batches[i].shape[0] for i in members]
        results.update(zip(members, torch.split(joined, sizes), strict=True))
    return [results[i] for i in range(len(batches))]
