"""What a fit has to solve: for every transform its equations, on training and on held-out images."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder, moves_axis
from equivae.data.sources import ImageDataset
from equivae.errors import InputError
from equivae.operators.geometry import geometry_of, phase_operator
from equivae.operators.modules import Kernel, LatentOperator
from equivae.operators.options import FitOptions
from equivae.operators.pairs import Pair, check_crop, check_transform_fits, latent_pairs
from equivae.operators.phases import Geometry, PhaseOperator
from equivae.operators.regression import (
    PatchRegression,
    PhaseRegression,
    Regression,
    at_border,
    learns_border,
)
from equivae.operators.seam_regression import SeamRegression, seam_operator
from equivae.operators.seams import SeamOperator
from equivae.transforms import Transform

__all__ = ["AUTO_KERNEL_SIZES", "Equations", "Problem", "gather", "kernels_of"]

AUTO_KERNEL_SIZES = (1, 3, 5, 7)
_MOST_ENTRIES = 4096  # of a patch: above, solving takes minutes and hundreds of megabytes
_MOST_WINDOW = 2304  # entries of a phase's window, of which there are several
_KEPT_IMAGES = 8  # held-out images that are decoded


@dataclass(frozen=True)
class Equations:
    """The equations of one map, on the images that it learns from and on those that judge it."""

    train: Regression[Any]
    held_out: Regression[Any]

    def refit(self, ridge: float, kernel: Kernel | None) -> LatentOperator:
        """The operator of all images, for a ridge and a kernel that were chosen already."""
        joined = self.train + self.held_out
        return joined.operator(joined.solve(ridge, kernel))


@dataclass
class Problem:
    """One transform, its equations and what is kept of the images.

    Attributes:
        transform: the transform at the VAE's factor.
        equations: training and held-out equations.
        kernels: what to solve for, ascending; one `None` where the equations have one kernel.
        held_out: held-out pairs, both ways of an involution; the images are kept of the first few of those
            that were asked for, which are decoded.
        training: training pairs without their images; filled when gradient steps follow.
        plain: squared error and power of the plain latent op over the held-out cells.
        interpolates: whether its cells are too few for a filter for every phase.
    """

    transform: Transform
    equations: Equations
    kernels: list[Kernel | None]
    held_out: list[Pair] = field(default_factory=list)
    training: list[Pair] = field(default_factory=list)
    plain: tuple[float, float] = (0.0, 0.0)
    interpolates: bool = False

    @property
    def moves_grid(self) -> bool:
        """Whether the operator of its equations takes the untouched latent to the new grid."""
        return self.equations.train.moves_grid

    def inputs(self, pair: Pair, operator: LatentOperator | None = None) -> Tensor:
        """What an operator is given, by default that of the equations."""
        moves = self.moves_grid if operator is None else operator.moves_grid
        return pair.latent if moves else pair.moved

    @property
    def grid_error(self) -> float:
        """The error of the plain latent op on held-out cells."""
        return math.sqrt(self.plain[0] / max(self.plain[1], torch.finfo(torch.float64).tiny))

    def decoded(self) -> list[Pair]:
        """The held-out pairs that are decoded."""
        return [pair for pair in self.held_out if pair.source is not None]

    def add(self, pair: Pair, training: bool, asked: bool, train_on: bool) -> None:
        """Add a pair to the equations; keep it if it is to be decoded or trained on.

        Args:
            pair: the pair.
            training: whether its images are those to learn from.
            asked: whether it leads the way that was asked for; the way back of an involution does not.
            train_on: whether gradient steps follow.
        """
        equations = self.equations.train if training else self.equations.held_out
        equations.add(self.inputs(pair), pair.target, pair.mask)
        if training:
            if asked and train_on:
                self.training.append(replace(pair, source=None))
            return
        error, power = squares(pair.moved, pair.target, pair.mask)
        self.plain = (self.plain[0] + error, self.plain[1] + power)
        seen = sum(len(kept.latent) for kept in self.decoded())
        decoded = asked and seen < _KEPT_IMAGES
        self.held_out.append(pair if decoded else replace(pair, source=None))


def squares(found: Tensor, target: Tensor, mask: Tensor | None) -> tuple[float, float]:
    """`‖found - target‖²` and `‖target‖²` over the cells that count."""
    inside = 1.0 if mask is None else mask.to(target)
    goal = target.double() * inside
    return float((found.double() * inside - goal).square().sum()), float(goal.square().sum())


def gather(
    vae: Autoencoder, transforms: Sequence[Transform], images: ImageDataset, options: FitOptions
) -> tuple[dict[str, Problem], int]:
    """The problems of transforms and of their inverses, by name; and how many images were held out."""
    if len(images) < 2:
        raise InputError(
            f"a fit needs at least two images, one of them held out to choose the ridge; got {len(images)}."
        )
    transforms = [vae.place(transform) for transform in transforms]
    for transform in transforms:
        _check(transform, images[0], vae, options)
    wanted = {transform.name for transform in transforms}
    training, held_out = images.split(options.validation_split, options.seed)
    for transform in transforms:
        if transform.mixes_samples and min(len(training), len(held_out)) < 2:
            raise InputError(
                f"transform {transform.name!r} mixes samples, and {len(training)} images to fit on and "
                f"{len(held_out)} held out are too few; pass more images, or a validation_split that holds "
                "out two."
            )
    problems: dict[str, Problem] = {}
    for part, is_training in ((training, True), (held_out, False)):
        pairs = latent_pairs(
            vae,
            part,
            transforms,
            batch_size=options.eval_batch_size,
            mixed_precision=options.mixed_precision,
            inverse=options.inverse,
            progress=options.progress,
        )
        for batch in pairs:
            for pair in batch:
                name = pair.transform.name
                if name not in problems:
                    problems[name] = _problem(pair, vae, len(training), options)
                asked = pair.forward or name not in wanted
                problems[name].add(pair, is_training, asked, options.trained)
    for problem in problems.values():
        _check_enough(problem, len(training), options)
    return problems, len(held_out)


def _check(transform: Transform, image: Tensor, vae: Autoencoder, options: FitOptions) -> None:
    """`InputError` unless images such as this one, and crops of it, can be fitted on."""
    check_transform_fits(transform, image, vae)
    _check_grid(transform, image, vae, options)
    crop = options.network.crop
    if crop is None:
        return
    ways = [(transform, image)]
    if options.inverse:
        with contextlib.suppress(NotImplementedError):
            ways.append((transform.inverse, transform.pixel(image[None])[0]))
    for way, start in ways:
        check_crop(crop, way, start, vae)
        _check_grid(way, start[:, :crop, :crop], vae, options)


def _check_grid(transform: Transform, image: Tensor, vae: Autoencoder, options: FitOptions) -> None:
    geometry = geometry_of(transform) if options.phases and image.ndim == 3 else None
    if geometry is not None:
        geometry.size(*(length // vae.factor for length in image.shape[1:]))


def _problem(pair: Pair, vae: Autoencoder, images: int, options: FitOptions) -> Problem:
    """The empty equations of a transform; `pair` shows the grid."""
    seam = _seam(pair, vae, options)
    if seam is not None:
        return Problem(
            pair.transform, Equations(SeamRegression(seam), SeamRegression(seam)), [None]
        )
    operator = _phases(pair, vae, images, options)
    if operator is not None:
        equations = Equations(PhaseRegression(operator), PhaseRegression(operator))
        return Problem(pair.transform, equations, [None])
    kernels = kernels_of(options, pair.transform, pair.moved.ndim - 2, vae)
    train = PatchRegression(
        vae.latent_channels,
        kernels[-1],
        options.padding,
        border=options.border and learns_border(at_border(pair.moved, kernels[-1]), pair.mask),
        magnitude=options.magnitude,
    )
    if train.entries > _MOST_ENTRIES:
        train = _low_rank(train, kernels[-1], options)
    train.choose_basis(pair.moved)
    return Problem(
        pair.transform,
        Equations(train, train.like()),
        list(kernels),
        interpolates=_geometry(pair, options) is not None,
    )


def _seam(pair: Pair, vae: Autoencoder, options: FitOptions) -> SeamOperator | None:
    """The unfitted operator of a crop or a paste; `None` for others, and under a network."""
    if options.method == "network" or pair.latent.ndim != 4:
        return None
    size = options.kernel_size if options.kernel_size != "auto" else 5
    return seam_operator(pair.transform, vae.latent_channels, size, _MOST_ENTRIES)


def _phases(pair: Pair, vae: Autoencoder, images: int, options: FitOptions) -> PhaseOperator | None:
    """The unfitted operator of a resampled transform; `None` for others, and with too few cells."""
    geometry = _geometry(pair, options)
    if geometry is None:
        return None
    counted = pair.mask.sum() if pair.mask is not None else pair.target[0, 0].numel()
    make = partial(
        phase_operator,
        geometry,
        vae.latent_channels,
        (pair.latent.shape[-2], pair.latent.shape[-1]),
        int(counted) * images,
        options.kernel_size if options.kernel_size != "auto" else 5,
        _MOST_WINDOW,
        magnitude=bool(options.magnitude),
    )
    made = make(border=options.border)
    if made is None or not made.border or learns_border(made.at_border(pair.latent), pair.mask):
        return made
    return make(border=False)


def _geometry(pair: Pair, options: FitOptions) -> Geometry | None:
    """Where the new cells lie, if a filter for every phase is wanted and can be told by numbers."""
    return geometry_of(pair.transform) if options.phases and pair.latent.ndim == 4 else None


def _low_rank(wide: PatchRegression, kernel: Kernel, options: FitOptions) -> PatchRegression:
    """Equations of as many principal components of the neighbours as can be solved for."""
    channels, cells = wide.channels, math.prod(kernel)
    own = channels * (1 + bool(options.magnitude)) + cells
    rank = (_MOST_ENTRIES - own) // cells
    if rank < 1:
        raise InputError(
            f"kernel_size={max(kernel)} is too large for {channels} latent channels; choose a smaller one."
        )
    return PatchRegression(
        channels,
        kernel,
        options.padding,
        border=wide.border,
        magnitude=min(1, options.magnitude),
        rank=min(rank, channels),
    )


def _check_enough(problem: Problem, images: int, options: FitOptions) -> None:
    """`InputError` when there are fewer training cells than unknowns and no ridge was asked for."""
    train = problem.equations.train
    smallest = train.fewest
    if not smallest:
        raise InputError(
            f"no latent cell lies inside the mask of transform {problem.transform.name!r} on these images; "
            "choose larger images."
        )
    entries = train.entries
    if options.ridge == 0 and smallest <= entries:
        needed = math.ceil((entries + 1) / smallest * images / (1 - options.validation_split))
        raise InputError(
            f"ridge=0 leaves the equations of {problem.transform.name!r} singular: {smallest} cells for "
            f"{entries} unknowns; pass at least {needed} images, a smaller kernel_size, or a ridge."
        )


def kernels_of(
    options: FitOptions, transform: Transform, axes: int, vae: Autoencoder
) -> list[Kernel]:
    """The kernels to solve for, ascending: as large as asked in space, in time, or in both if both move."""
    auto = options.kernel_size == "auto"
    sizes = AUTO_KERNEL_SIZES if options.kernel_size == "auto" else (options.kernel_size,)
    moved = [True] * axes  # a video autoencoder takes images too
    if len(moved) == 3:
        moved = [moves_axis(transform, "video", i, vae.geometry.axes) for i in range(3)]
        moved[1:] = [moved[1] or moved[2]] * 2  # space is one
    kernels = [tuple(size if moves else 1 for moves in moved) for size in sizes]
    fitting = [k for k in kernels if vae.latent_channels * math.prod(k) <= _MOST_ENTRIES]
    return (fitting or kernels[:1]) if auto else kernels
