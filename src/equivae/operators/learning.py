"""What gradient steps learn from: pairs of latents kept from the fit, or random crops of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.operators.decoding import squared_error
from equivae.operators.modules import LatentOperator
from equivae.operators.pairs import Precision, cells_inside, encoded, lowered
from equivae.operators.refine import Loss
from equivae.transforms import Transform

__all__ = ["Crops", "Examples", "Images", "MovedImages", "decoded_loss", "latent_loss"]


class Images(Protocol):
    """Images by position."""

    def __getitem__(self, index: int) -> Tensor:
        """`(C, H, W)` in [-1, 1]."""


@dataclass(frozen=True)
class MovedImages:
    """The images that the way back starts from."""

    images: Images
    transform: Transform

    def __getitem__(self, index: int) -> Tensor:
        return self.transform.pixel(self.images[index][None])[0]


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Attributes:
        inputs: `(B, c, *grid)`, what the operator is given.
        images: `(B, C, H, W)`; nothing beside targets.
        targets: `(B, c, *grid)`, where they were asked for.
        cells: those of the targets that count, bool `(*grid)`; `None` means all.
    """

    inputs: Tensor
    images: Tensor
    targets: Tensor | None = None
    cells: Tensor | None = None


class Source(Protocol):
    """Gives batches by rows."""

    def draw(self, rows: Tensor, generator: torch.Generator, targets: bool) -> Batch:
        """The batch of some rows, with targets if asked for."""


@dataclass(frozen=True)
class Examples:
    """Pairs of latents that the fit encoded, and their images.

    Attributes:
        inputs: `(N, c, *grid)` on the CPU.
        targets: the same.
        images: of the rows, where they are decoded.
        cells: those of the targets that count, bool `(*grid)`; `None` means all.
    """

    inputs: Tensor
    targets: Tensor
    images: Images
    cells: Tensor | None

    @classmethod
    def of(
        cls,
        inputs: Sequence[Tensor],
        targets: Sequence[Tensor],
        images: Images,
        cells: Tensor | None,
    ) -> Examples:
        """Batches, one after another."""
        return cls(torch.cat([*inputs]).cpu(), torch.cat([*targets]).cpu(), images, cells)

    def draw(self, rows: Tensor, generator: torch.Generator, targets: bool) -> Batch:
        inputs = self.inputs[rows]
        if targets:
            return Batch(inputs, torch.empty(0), self.targets[rows], self.cells)
        return Batch(inputs, torch.stack([self.images[row] for row in rows.tolist()]))


@dataclass(frozen=True)
class Crops:
    """Random crops of images, encoded anew for every step, so that no two steps see the same.

    Attributes:
        images: what is cropped.
        side: of the crops, in pixels.
        vae: what encodes them.
        transform: where they are moved.
        moves_grid: whether the operator takes untouched latents.
        precision: of the encodes.
    """

    images: Images
    side: int
    vae: Autoencoder
    transform: Transform
    moves_grid: bool
    precision: Precision

    def draw(self, rows: Tensor, generator: torch.Generator, targets: bool) -> Batch:
        images = torch.stack([self._crop(self.images[row], generator) for row in rows.tolist()])
        with torch.no_grad():
            images = images.to(self.vae.device, self.vae.dtype)
            latents = encoded(self.vae, images, self.precision)
            inputs = latents if self.moves_grid else self.transform.latent(latents)
            if not targets:
                return Batch(inputs, images)
            goal = encoded(self.vae, self.transform.pixel(images), self.precision)
            return Batch(inputs, images, goal, cells_inside(self.transform.mask(images), goal))

    def _crop(self, image: Tensor, generator: torch.Generator) -> Tensor:
        top, left = (
            int(torch.randint(length - self.side + 1, (), generator=generator))
            for length in image.shape[-2:]
        )
        return image[:, top : top + self.side, left : left + self.side]


def latent_loss(source: Source) -> Loss:
    """`‖ρ E(x) - E(T x)‖²`, mean over the cells that count."""

    def loss(operator: LatentOperator, rows: Tensor, generator: torch.Generator) -> Tensor:
        batch = source.draw(rows, generator, targets=True)
        assert batch.targets is not None
        like = next(operator.parameters())
        squares = (operator(batch.inputs.to(like)) - batch.targets.to(like)).square()
        if batch.cells is not None:
            squares = squares[..., batch.cells]
        mean: Tensor = squares.mean()
        return mean

    return loss


def decoded_loss(
    source: Source, vae: Autoencoder, transform: Transform, precision: Precision = "no"
) -> Loss:
    """`‖D(ρ E(x)) - T(x)‖²`, mean over the pixels that count; decoded under autocast to bf16 if asked for."""
    # Gradients of a mean over so many pixels would vanish in float16.
    decoding: Precision = "bf16" if precision == "bf16" else "no"

    def loss(operator: LatentOperator, rows: Tensor, generator: torch.Generator) -> Tensor:
        batch = source.draw(rows, generator, targets=False)
        x = batch.images.to(vae.device, vae.dtype)
        moved = operator(batch.inputs.to(vae.device)).to(vae.dtype)
        with lowered(vae, decoding):
            decoded = vae.decode(moved)
        squares, count = squared_error(decoded, transform.pixel(x), transform.mask(x))
        return squares / count

    return loss
