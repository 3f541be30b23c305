"""`fit_latent_op`: the latent op of a transform by least squares, the VAE untouched."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

import torch
from torch import Tensor, nn

from equivae.autoencoder import Autoencoder, at_top_level, measuring, moves_axis
from equivae.data.sources import ImageDataset, ImagesLike, load_images
from equivae.errors import InputError
from equivae.files.pretrained import load_vae
from equivae.files.writing import check_name
from equivae.operators.modules import (
    ConvOperator,
    LatentOperator,
    ResidualOperator,
)
from equivae.operators.network import NetworkOptions, train_network
from equivae.operators.options import FitOptions, KernelSize, Method
from equivae.operators.pairs import (
    Pair,
    Precision,
    check_transform_fits,
    latent_pairs,
)
from equivae.operators.regression import Kernel, Padding, PatchRegression
from equivae.operators.report import Candidate, FitReport
from equivae.operators.structure import nearest_involution
from equivae.operators.transform import FittedTransform, inverse_consistency, is_involution
from equivae.options import (
    SIDE,
    at_least,
    check_value,
)
from equivae.transforms import Transform, resolve_transforms
from equivae.units import psnr, require_finite

__all__ = [
    "AUTO_KERNEL_SIZES",
    "INVISIBLE_DB",
    "FitOptions",
    "KernelSize",
    "OperatorFit",
    "accumulate",
    "fit_latent_op",
    "fit_operators",
]

AUTO_KERNEL_SIZES = (1, 3, 5, 7)
_AUTO_MARGIN_DB = 0.1
INVISIBLE_DB = 60.0  # a decode this close differs by less than the rounding to 8 bits
_MOST_ENTRIES = 4096  # of a patch: above, solving takes minutes and hundreds of megabytes
_KEPT_IMAGES = 8  # held-out images that are decoded to compare candidates


def fit_latent_op(
    vae: nn.Module | str | Path,
    transform: str | Transform,
    images: ImagesLike,
    kernel_size: KernelSize = 5,
    *,
    method: Method = "linear",
    padding: Padding = "zeros",
    ridge: float | None = None,
    involution: bool = False,
    name: str | None = None,
    resolution: int | None = None,
    max_samples: int | None = None,
    image_column: str | None = None,
    split: str = "train",
    background: str | tuple[int, int, int] = "white",
    validation_split: float = 0.1,
    eval_batch_size: int = 4,
    mixed_precision: Precision = "no",
    seed: int = 0,
    max_train_steps: int = 300,
    learning_rate: float = 1e-3,
    width: int = 64,
    progress: bool = True,
) -> FittedTransform:
    r"""Fit the latent op of a transform in closed form; the VAE stays bit for bit as it is.

    A flip changes where a latent cell is and also what its channels say. So the grid move `S` is
    followed by a small convolution, `ρ(z) = W * S(z) + b`, which solves

    .. math:: \min_{W, b} \sum_x \lVert W * S(E(x)) + b - E(T(x)) \rVert^2 + \lambda \lVert W \rVert^2

    by its normal equations, accumulated in one pass whose memory does not depend on the number of images.
    The ridge is the one with the least error on held-out images. The inverse is fitted in the same pass,
    and an involution such as a flip learns from both directions.

    Args:
        vae: a diffusers autoencoder or any module with the same calls, or where to load one from.
        transform: a transform or its name; resampled ones are fitted inside their mask.
        images: anything that `equivae.data.load_images` takes; a few hundred photographs are enough.
        kernel_size: odd number of latent cells along the axes that the transform moves, or `"auto"`: the
            smallest of 1, 3, 5 and 7 whose decoded PSNR on held-out images is within 0.1 dB of the best;
            the evidence is in `report.candidates`.
        method: `"linear"`, or `"network"`: a small residual network is trained on the same pairs on top
            of the convolution (a gradient method, and no longer closed form).
        padding: how cells beyond the border are made up: `"zeros"`, `"replicate"` or `"reflect"`.
        ridge: `λ` relative to the mean variance of a patch entry, instead of the held-out choice.
        involution: project a 1x1 operator onto those with eigenvalues of +1 and -1, for which `ρρ` is the
            identity.
        name: the transform's name, `"rot180_fitted"` by default.
        resolution: resize and centre-crop the images to this side in pixels.
        max_samples: use the first so many images only.
        image_column: as `split` and `background`, see `equivae.data.load_images`.
        validation_split: share of the images held out.
        eval_batch_size: images per encoder call.
        mixed_precision: encode under autocast: `"no"`, `"fp16"` or `"bf16"`.
        seed: of the split and of the network.
        max_train_steps: of the network.
        learning_rate: of the network.
        width: channels inside the network.
        progress: show a progress bar.

    Returns a `FittedTransform`, a transform like any other, with a `report`. Raises `InputError` for an
    unknown transform, fewer than two images, or images that the VAE cannot take.

    ```python
    import equivae

    vae, images = equivae.zoo.load(), equivae.data.dead_leaves(12, size=64)
    t = equivae.fit_latent_op(vae, "rot180", images, kernel_size=3, progress=False)
    print(t.report.to_markdown())
    report = equivae.evaluate(vae, images, transforms=["rot180", t], progress=False)
    ```
    """
    if name is not None:
        check_name("name", name)
    check_value("resolution", resolution, Optional[int], range=SIDE)
    check_value("max_samples", max_samples, Optional[int], range=at_least(2))
    options = FitOptions(
        kernel_size=kernel_size,
        method=method,
        padding=padding,
        ridge=ridge,
        involution=involution,
        validation_split=validation_split,
        eval_batch_size=eval_batch_size,
        mixed_precision=mixed_precision,
        seed=seed,
        network=NetworkOptions(max_train_steps, learning_rate, width=width, seed=seed),
        progress=progress,
    )
    wanted = resolve_transforms(transform)
    if len(wanted) != 1:
        raise InputError(
            f"fit_latent_op fits one transform, {transform!r} stands for {len(wanted)}; use "
            "fit_latent_group for a group."
        )
    if involution and not is_involution(wanted[0]):
        raise InputError(
            f"transform {wanted[0].name!r} is no involution, so it cannot be fitted as one."
        )
    autoencoder = Autoencoder(load_vae(vae))
    dataset = load_images(
        images,
        resolution=resolution,
        channels=autoencoder.image_channels,
        max_samples=max_samples,
        image_column=image_column,
        split=split,
        background=background,
    )
    fitted = fit_operators(autoencoder, wanted, dataset, options)[wanted[0].name]
    if name is None:
        return fitted
    return FittedTransform(
        fitted.base, fitted.operator, fitted.inverse_operator, name, fitted.report
    )


@at_top_level()
def fit_operators(
    vae: Autoencoder, transforms: Sequence[Transform], images: ImageDataset, options: FitOptions
) -> dict[str, FittedTransform]:
    """Operators of several transforms from one pass, by the transforms' names."""
    began = time.perf_counter()
    transforms = [vae.place(transform) for transform in transforms]
    fits, held_out_images = accumulate(vae, transforms, images, options)
    wanted = {transform.name for transform in transforms}
    for name, fit in fits.items():
        if name in wanted:
            fit.solve(vae)
    for name, fit in fits.items():
        if name not in wanted:  # an inverse takes the size that its transform was given
            fit.kernels = [fits[fit.transform.inverse.name].operator.kernel]
            fit.solve(vae, decoding=False)
    fitted = {}
    for transform in transforms:
        fit = fits[transform.name]
        backward = _inverse_fit(transform, fits)
        inverse_operator = None if backward is None else backward.operator
        made = FittedTransform(transform, fit.operator, inverse_operator)
        made.check_finite()
        probe = transform.inverse.latent(fit.kept[0].moved) if backward is not None else None
        made.report = FitReport(
            transform=transform.name,
            method=options.method,
            kernel_size=fit.kernel_size,
            padding=options.padding,
            ridge=fit.ridge,
            images=len(images),
            cells=fit.train.count + fit.held_out.count,
            held_out_images=held_out_images,
            grid_error=fit.held_out.grid_error(),
            latent_error=fit.error,
            inverse_latent_error=None if backward in (None, fit) else backward.error,  # type: ignore[union-attr]
            inverse_consistency=None if probe is None else inverse_consistency(made, probe),
            candidates=fit.candidates,
        )
        fitted[transform.name] = made
    seconds = round(time.perf_counter() - began, 2)
    for made in fitted.values():
        assert made.report is not None
        made.report = replace(made.report, seconds=seconds)
    return fitted


def accumulate(
    vae: Autoencoder, transforms: Sequence[Transform], images: ImageDataset, options: FitOptions
) -> tuple[dict[str, OperatorFit], int]:
    """The equations of transforms and of their inverses, by name; and how many images were held out."""
    if len(images) < 2:
        raise InputError(
            f"a fit needs at least two images, one of them held out to choose the ridge; got {len(images)}."
        )
    transforms = [vae.place(transform) for transform in transforms]
    for transform in transforms:
        check_transform_fits(transform, images[0], vae)
    wanted = {transform.name for transform in transforms}
    training, held_out = images.split(options.validation_split, options.seed)
    fits: dict[str, OperatorFit] = {}
    for part, is_training in ((training, True), (held_out, False)):
        pairs = latent_pairs(
            vae,
            part,
            transforms,
            batch_size=options.eval_batch_size,
            mixed_precision=options.mixed_precision,
            progress=options.progress,
        )
        for batch in pairs:
            for pair in batch:
                name = pair.transform.name
                if name not in fits:
                    kernels = _kernels(options, pair.transform, vae)
                    fits[name] = OperatorFit(pair.transform, vae.latent_channels, kernels, options)
                keep = not is_training and (pair.forward or name not in wanted)
                fits[name].add(pair, is_training, keep)
    return fits, len(held_out)


class OperatorFit:
    """One transform's equations, some held-out pairs and, when they are solved, its operator."""

    def __init__(
        self, transform: Transform, channels: int, kernels: Sequence[Kernel], options: FitOptions
    ) -> None:
        self.transform, self.kernels, self.options = transform, kernels, options
        self.train = PatchRegression(channels, max(kernels), options.padding)
        self.held_out = PatchRegression(channels, max(kernels), options.padding)
        self.kept: list[Pair] = []
        self.pairs: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self.choices: list[tuple[Candidate, LatentOperator, float]] = []
        self.candidates: list[Candidate] = []
        self.operator: LatentOperator
        self.kernel_size, self.ridge, self.error = 0, 0.0, 0.0

    def add(self, pair: Pair, is_training: bool, keep: bool) -> None:
        """Add a pair to the training or the held-out equations; keep it to be decoded."""
        equations = self.train if is_training else self.held_out
        equations.add(pair.moved, pair.target, pair.mask)
        if is_training and self.options.method == "network":
            self.pairs.append((pair.moved.float().cpu(), pair.target.float().cpu(), pair.mask))
        if keep and sum(len(p.source) for p in self.kept) < _KEPT_IMAGES:
            self.kept.append(pair)

    def solve(self, vae: Autoencoder, decoding: bool = True) -> None:
        """Solve for every size; choose one, by what the decoder makes of it if there is a choice."""
        if not (self.train.gram.isfinite().all() and self.train.cross.isfinite().all()):
            raise InputError(
                f"{type(vae.module).__name__} encodes these images, or what {self.transform.name} makes of "
                "them, to NaN or infinite values, to which nothing can be fitted; check the weights."
            )
        options = self.options
        ridges = None if options.ridge is None else [options.ridge]
        choices = self.choices
        for kernel in self.kernels:
            found = {"ridges": ridges} if ridges else {}
            solution, error = self.train.best(self.held_out, kernel, **found)
            operator = ConvOperator.from_solution(solution, options.padding)
            if options.involution:
                operator = nearest_involution(operator)
                error = self._held_out_error(operator)
            decoded = None
            if decoding and (len(self.kernels) > 1 or options.method == "network"):
                decoded = self.decoded_psnr(vae, operator)
            candidate = Candidate("linear", max(kernel), error, decoded)
            choices.append((candidate, operator.to(vae.device), solution.ridge))
        scores = [_score(candidate) for candidate, _, _ in choices]
        margin = _AUTO_MARGIN_DB if choices[0][0].decoded_psnr is not None else 0.0
        chosen = next(
            one for one, score in zip(choices, scores, strict=True) if score >= max(scores) - margin
        )
        candidate, self.operator, self.ridge = chosen
        self.kernel_size, self.error = candidate.kernel_size, candidate.latent_error
        if len(self.kernels) > 1 or options.method == "network":
            self.candidates = [one for one, _, _ in choices]
        if options.method == "network":
            assert isinstance(self.operator, ConvOperator)
            network = ResidualOperator(self.operator, options.network.width)
            self.operator = train_network(network, self.pairs, options.network, options.progress)
            self.error = self._held_out_error(network)
            decoded = self.decoded_psnr(vae, network) if decoding else None
            self.candidates.append(Candidate("network", self.kernel_size, self.error, decoded))

    @torch.no_grad()
    def _held_out_error(self, operator: LatentOperator) -> float:
        """`‖ρ E(x) - E(T x)‖ / ‖E(T x)‖` over the pairs kept."""
        error = power = 0.0
        for pair in self.kept:
            inside = 1.0 if pair.mask is None else pair.mask.to(pair.target)
            target = pair.target * inside
            error += float((operator(pair.moved) * inside - target).square().sum())
            power += float(target.square().sum())
        return math.sqrt(error / power)

    def decoded_psnr(self, vae: Autoencoder, operator: LatentOperator) -> float:
        """PSNR of `D(ρ E(x))` against `T(x)` over the pairs kept, inside the mask."""
        error = count = 0.0
        operator = operator.to(vae.device)
        with measuring(vae.module):
            for pair in self.kept:
                target, mask = self.transform.pixel(pair.source), self.transform.mask(pair.source)
                decoded = vae.decode(operator(pair.moved.to(vae.dtype)))
                difference = (decoded.clamp(-1, 1) - target.clamp(-1, 1)).float().div(2).square()
                inside = torch.ones_like(difference) if mask is None else mask.to(difference)
                inside = inside.expand_as(difference)
                error += float((difference * inside).sum())
                count += float(inside.sum())
        name = type(vae.module).__name__
        require_finite(error, f"the decodes of {name}", "check its weights and its dtype")
        return psnr(error / count)


def _score(candidate: Candidate) -> float:
    """What is compared: the decoded PSNR up to where it stops to be visible, or else the latent error."""
    if candidate.decoded_psnr is None:
        return -candidate.latent_error
    return min(candidate.decoded_psnr, INVISIBLE_DB)


def _inverse_fit(transform: Transform, fits: dict[str, OperatorFit]) -> OperatorFit | None:
    try:
        return fits[transform.inverse.name]
    except NotImplementedError:
        return None


def _kernels(options: FitOptions, transform: Transform, vae: Autoencoder) -> list[Kernel]:
    """The kernels to solve for, ascending: as large as asked in space, in time, or in both if both move."""
    auto = options.kernel_size == "auto"
    sizes = AUTO_KERNEL_SIZES if options.kernel_size == "auto" else (options.kernel_size,)
    moved = [True] * len(vae.geometry.axes)
    if vae.layout == "video":
        moved = [moves_axis(transform, "video", i, vae.geometry.axes) for i in range(3)]
        moved[1:] = [moved[1] or moved[2]] * 2  # space is one
    kernels = [tuple(size if moves else 1 for moves in moved) for size in sizes]
    fitting = [k for k in kernels if vae.latent_channels * math.prod(k) <= _MOST_ENTRIES]
    return (fitting or kernels[:1]) if auto else kernels
