r"""The layers at latent resolution, trained first and by themselves.

Under the plain latent op most of what a VAE has to learn sits in the few layers between encoder and
decoder, and most of the time of a step is spent everywhere else. So they get steps of their own: with
`E_0 = tail_0 ∘ front`, `D_0 = back ∘ head_0` the untouched VAE, `z = tail(front(x))` and `T` a transform
with latent op `ρ`,

.. math:: L = \lVert head(z) - head_0(E_0(x)) \rVert^2 + w \lVert head(\rho z) - head_0(E_0(T x)) \rVert^2

which asks the decoder's first features for what the untouched decoder is used to, upright and moved. The
features `front(x)` and the latents `E_0` are computed once.

Training only what lies between a frozen encoder and a frozen decoder is Re-Bottleneck's (Bralios, Casebeer
and Smaragdis, arXiv 2507.07867), which puts an autoencoder of its own there; equivariance is one of its uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from equivae.autoencoder import (
    Autoencoder,
    NoBottleneckError,
    copy_module,
    evaluating,
    find_bottleneck,
)
from equivae.autoencoder.bottleneck import Bottleneck
from equivae.autoencoder.modes import whole_batches
from equivae.data.sources import ImageDataset, ImagesLike, load_images
from equivae.errors import InputError, NonFiniteLossError
from equivae.options import (
    BATCH,
    NOT_NEGATIVE,
    SEED,
    SIDE,
    Options,
    above,
    at_least,
    option,
    within,
)
from equivae.training.crops import random_crop
from equivae.training.options import Precision
from equivae.training.pace import Pace, decline
from equivae.training.state import RunState
from equivae.training.trainer import Batch, Hook, LocalEngine, Player, Trainer
from equivae.transforms import Transform, resolve_transforms
from equivae.transforms.base import mask_of_cells
from equivae.transforms.groups import TransformsLike

__all__ = ["BottleneckOptions", "BottleneckResult", "train_bottleneck"]


_READ_EVERY = 10  # steps


@dataclass(frozen=True)
class BottleneckOptions(Options):
    """How the layers at latent resolution are trained.

    Attributes:
        steps: optimiser steps at most.
        tolerance: they end early once the loss falls by less than this part in 100 steps, after a fall of the
            rate to zero; 0 takes all of them.
        learning_rate: peak of AdamW's, with a warm-up of 20 steps and a cosine to zero.
        train_batch_size: images per step.
        eval_batch_size: images per encoder call before that.
        max_images: how many images are used at most.
        memory_mb: fewer of them, if their features take more than that of the computer's memory; what is left
            of it holds what the untouched decoder's first layers make of them.
        crop_size: side in pixels of the one crop that is taken of each image; `None` takes it whole.
        weight: `w`.
        mixed_precision: `"bf16"`, or float32 for all else: gradients are not scaled here, as fp16 needs.
        seed: of crops, draws and order.
        progress: show a progress bar.
    """

    steps: int = option(500, "Optimiser steps at most.", range=at_least(1))
    tolerance: float = option(
        0.0, "End once the loss falls by less than this part in 100 steps.", range=within(0, 1)
    )
    learning_rate: float = option(1e-3, "Peak of AdamW's.", range=above(0))
    train_batch_size: int = option(8, "Images per step.", range=at_least(1))
    eval_batch_size: int = option(4, "Images per encoder call before that.", range=BATCH)
    max_images: int = option(256, "Images used at most.", range=at_least(1))
    memory_mb: int = option(2048, "Fewer, if their features take more.", range=at_least(0))
    crop_size: int | None = option(None, "Side of a random crop, in pixels.", range=SIDE)
    weight: float = option(1.0, "Of the moved term.", range=NOT_NEGATIVE)
    mixed_precision: Precision = option("no", "bf16, or float32 for all else.")
    seed: int = option(0, "Of crops, draws and order.", range=SEED)
    progress: bool = option(True, "Show a progress bar.")


@dataclass(frozen=True)
class BottleneckResult:
    """What `train_bottleneck` did.

    Attributes:
        images: how many were used.
        parameters: how many weights learned.
        losses: of every step that was taken, relative to the power of the features.
    """

    images: int
    parameters: int
    losses: list[float]


@dataclass
class _Batch:
    """What is known of some images before training."""

    features: Tensor  # front(x), in the computer's memory
    latents: Tensor  # E_0(x)
    transform: Transform | None
    moved: Tensor | None  # E_0(T x)
    mask: Tensor | None  # cells that count


def train_bottleneck(
    vae: nn.Module | Autoencoder,
    transforms: TransformsLike,
    images: ImagesLike,
    options: BottleneckOptions | None = None,
) -> BottleneckResult:
    """Train the layers at latent resolution in place, the others left as they are.

    Args:
        vae: an image autoencoder in float32, with weights that may learn.
        transforms: names, groups, transforms or a list of those; each batch of images keeps one of them, in
            turn.
        images: anything that `equivae.data.load_images` takes, all of one size.
        options: see `BottleneckOptions`.

    Raises `NoBottleneckError` if the autoencoder has no such layers that can be run by themselves,
    `InputError` if it is not in float32, and `NonFiniteLossError`, the weights as they were before, when the
    loss stops being a number.

    ```python
    import equivae
    from equivae.training import BottleneckOptions, train_bottleneck

    images = equivae.data.dead_leaves(16, size=64)
    options = BottleneckOptions(steps=20, progress=False)
    result = train_bottleneck(equivae.zoo.load(), "rot180", images, options)
    assert result.losses[-1] < result.losses[0]
    ```
    """
    options = options or BottleneckOptions()
    vae = vae if isinstance(vae, Autoencoder) else Autoencoder(vae)
    wanted = resolve_transforms(transforms)
    images = images if isinstance(images, ImageDataset) else load_images(images)
    generator = torch.Generator().manual_seed(options.seed)
    size = options.crop_size
    example = images[0][None, ..., :size, :size] if size else images[0][None]
    if vae.dtype != torch.float32:
        raise InputError(f"the weights have to be in float32 to learn, these are {vae.dtype}.")
    with whole_batches(vae.module) as sliced:
        if sliced:  # its images go one by one through the encoder all the same
            options = replace(options, eval_batch_size=1)
        bottleneck = find_bottleneck(vae, example.to(vae.device))
        teacher = Autoencoder(copy_module(vae.module).requires_grad_(False).eval())
        taught = replace(bottleneck, vae=teacher)
        try:
            with evaluating(vae.module):
                batches = _look(taught, wanted, images, options, generator)
                return _fit(bottleneck, taught, batches, options, generator)
        except BaseException:  # an interrupt leaves no half-trained weights either
            vae.module.load_state_dict(teacher.module.state_dict())
            raise


def _fit(
    bottleneck: Bottleneck,
    taught: Bottleneck,
    batches: list[_Batch],
    options: BottleneckOptions,
    generator: torch.Generator,
) -> BottleneckResult:
    from tqdm.auto import tqdm

    vae, steps = bottleneck.vae, options.steps
    with _lowered(vae, options):
        learned = _learning(bottleneck, batches[0])
    optimizer = torch.optim.AdamW(
        learned, options.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    pace = Pace(steps, min(20, max(1, steps // 4)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, pace)

    def loss(batch: _Batch) -> tuple[Tensor, dict[str, Tensor]]:
        # Not around the loop: autocast keeps the weights that it cast.
        with _lowered(vae, options):
            return _loss(bottleneck, targets, batch, options.weight), {}

    held = sum(batch.features.numel() * batch.features.element_size() for batch in batches)
    targets = _Targets(taught, options.memory_mb * 2**20 - held)
    bar = tqdm(total=steps, desc="bottleneck", disable=not options.progress)
    draws = _Draws(batches, generator)
    losses = _Losses(bar, pace, draws, options.tolerance)
    trainer = Trainer(
        LocalEngine(), [Player(loss, learned, optimizer, schedule)], max_grad_norm=1.0
    )
    trainer.fit(draws, RunState(), steps, [losses])
    used = sum(len(batch.latents) for batch in batches)
    return BottleneckResult(used, sum(p.numel() for p in learned), losses.values)


class _Draws:
    """Batches at random, without an end."""

    def __init__(self, batches: Sequence[_Batch], generator: torch.Generator) -> None:
        self.batches, self.generator = batches, generator
        self.drawn: list[int] = []

    def epoch(self, epoch: int, samples: int) -> Iterator[Batch]:
        while True:
            self.drawn.append(int(torch.randint(len(self.batches), (), generator=self.generator)))
            batch = self.batches[self.drawn[-1]]
            yield Batch((batch,), len(batch.latents))


class _Losses(Hook):
    """The loss of every step, read now and then, so that no step waits for the device; its rest ends them."""

    def __init__(self, bar: Any, pace: Pace, draws: _Draws, tolerance: float) -> None:
        self.bar, self.pace, self.draws, self.tolerance = bar, pace, draws, tolerance
        self.values: list[float] = []
        self.unread: list[Tensor] = []

    def on_batch(self, loss: Tensor, terms: dict[str, Tensor], state: RunState) -> None:
        self.unread.append(loss)

    def on_step(self, state: RunState) -> None:
        self.bar.update()
        if len(self.unread) < _READ_EVERY and state.step < self.pace.last:
            return
        self.values += torch.stack(self.unread).tolist()  # the one place that waits for the device
        self.unread = []
        bad = next((i for i, value in enumerate(self.values) if not math.isfinite(value)), None)
        if bad is not None:
            raise NonFiniteLossError(
                f"the loss of the layers at latent resolution became {self.values[bad]} at step "
                f"{bad + 1}, before all layers learn; lower bottleneck_learning_rate, or set "
                "bottleneck_steps=0.",
                bad + 1,
            )
        self.bar.set_postfix(loss=f"{self.values[-1]:.3f}")
        fell = decline(self.values, self.draws.drawn) if self.tolerance else None
        if fell is not None and fell < self.tolerance:
            self.pace.end(state.step)

    def stops(self, state: RunState) -> bool:
        return state.step >= self.pace.last

    def on_end(self, state: RunState) -> None:
        self.bar.close()


def _lowered(vae: Autoencoder, options: BottleneckOptions) -> Any:
    if options.mixed_precision != "bf16":
        return nullcontext()
    return torch.autocast(vae.device.type, torch.bfloat16)


@torch.no_grad()
def _look(
    taught: Bottleneck,
    transforms: Sequence[Transform],
    images: ImageDataset,
    options: BottleneckOptions,
    generator: torch.Generator,
) -> list[_Batch]:
    """Features and latents of the images, of each batch under one transform as well."""
    from tqdm.auto import tqdm

    vae = taught.vae
    order = torch.randperm(len(images), generator=generator)[: options.max_images].tolist()
    # Every transform gets a batch, where there are images enough.
    size = max(1, min(options.train_batch_size, len(order) // max(1, len(transforms))))
    parts = [order[i : i + size] for i in range(0, len(order), size)]
    batches: list[_Batch] = []
    taken = 0
    for rows in tqdm(parts, desc="features", disable=not options.progress, leave=False):
        if taken > options.memory_mb * 2**20:
            break
        x = torch.stack(
            [random_crop(images[row], options.crop_size, generator) for row in rows]
        ).to(vae.device)

        def each(call: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
            with _lowered(vae, options):
                return torch.cat(
                    [call(part) for part in torch.split(given, options.eval_batch_size)]
                )

        features = each(taught.front, x)
        batch = _Batch(_in_memory(features), each(taught.tail, features), None, None, None)
        taken += features.numel() * features.element_size()
        if transforms:
            round_, place = divmod(len(batches), len(transforms))
            drawn = vae.place(transforms[place].at_step(round_)).draw(len(x), generator)
            moved, mask = each(vae.encode, drawn.pixel(x)), drawn.mask(x)
            if moved.shape != drawn.latent(batch.latents).shape:
                raise NoBottleneckError(
                    f"images under {drawn.name!r} encode to {tuple(moved.shape[2:])} cells, their moved "
                    f"latents have {tuple(drawn.latent(batch.latents).shape[2:])}."
                )
            cells = None if mask is None else mask_of_cells(mask, moved.shape[-2:])
            if cells is None or cells.any():  # a draw that leaves nothing teaches nothing
                batch.transform, batch.moved, batch.mask = drawn, moved, cells
        batches.append(batch)
    return batches


def _loss(student: Bottleneck, targets: _Targets, batch: _Batch, weight: float) -> Tensor:
    latents = student.tail(batch.features.to(student.vae.device, non_blocking=True))
    loss = _relative(student.head(latents), targets.of(batch.latents), None)
    if batch.transform is not None and batch.moved is not None:
        moved = student.head(batch.transform.latent(latents))
        loss = loss + weight * _relative(moved, targets.of(batch.moved), batch.mask)
    return loss


class _Targets:
    """What the untouched head makes of the batches' latents: computed once, as far as there is room.

    Args:
        taught: the untouched layers.
        room: bytes of the computer's memory.
    """

    def __init__(self, taught: Bottleneck, room: float) -> None:
        self.taught, self.room = taught, room
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}  # beside each the latents that it is of

    @torch.no_grad()
    def of(self, latents: Tensor) -> Tensor:
        known = self._kept.get(id(latents))
        if known is not None:
            return known[1].to(latents.device, non_blocking=True)
        found = self.taught.head(latents)
        self.room -= found.numel() * found.element_size()
        if self.room >= 0:
            self._kept[id(latents)] = latents, _in_memory(found)
        return found


def _in_memory(tensor: Tensor) -> Tensor:
    """A tensor in the computer's memory, where it goes, and from where it comes back, without a wait."""
    if not tensor.is_cuda:
        return tensor
    kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return kept.copy_(tensor, non_blocking=True)


def _relative(features: Tensor, wanted: Tensor, mask: Tensor | None) -> Tensor:
    """Squared error over the power of each channel, so that none is drowned by another."""
    wanted = wanted.float()
    power = wanted.square().mean(dim=(0, 2, 3), keepdim=True).clamp_min(1e-8)
    error = (features.float() - wanted).square() / power
    if mask is None:
        return error.mean()
    inside = mask.to(error).expand_as(error)
    return (error * inside).sum() / inside.sum().clamp_min(1.0)


def _learning(bottleneck: Bottleneck, batch: _Batch) -> list[nn.Parameter]:
    """The weights that gradients reach."""
    every = list(bottleneck.vae.module.parameters())
    wanted = [p for p in every if p.requires_grad]
    features = batch.features.to(bottleneck.vae.device)
    output = bottleneck.head(bottleneck.tail(features)).float().square().mean()
    found = []
    if wanted and output.requires_grad:
        try:
            gradients = torch.autograd.grad(output, wanted, allow_unused=True)
        except RuntimeError as error:
            # Checkpointing computes again, when the layers are no longer alone.
            raise NoBottleneckError(
                f"no gradient of the layers at latent resolution alone: {error}"
            ) from error
        found = [p for p, g in zip(wanted, gradients, strict=True) if g is not None]
    if not found:
        raise NoBottleneckError("no weights at latent resolution learn; set bottleneck_steps=0.")
    return found
