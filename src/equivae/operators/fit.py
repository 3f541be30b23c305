"""`fit_latent_op`: the latent op of a transform by least squares, the VAE untouched."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from torch import nn

from equivae.autoencoder import Autoencoder, at_top_level
from equivae.data.sources import ImageDataset, ImagesLike, load_images
from equivae.errors import InputError
from equivae.files.pretrained import load_vae
from equivae.files.writing import check_name
from equivae.operators.beside_plain import beside_plain
from equivae.operators.conjugate import conjugated
from equivae.operators.family import fit_family
from equivae.operators.fingerprint import Fingerprint
from equivae.operators.learning import Images, MovedImages
from equivae.operators.modules import Padding
from equivae.operators.options import (
    FitOptions,
    KernelSize,
    Method,
    NetworkOptions,
    NetworkSize,
    Objective,
    network_shape,
)
from equivae.operators.pairs import Precision
from equivae.operators.problems import Problem, gather
from equivae.operators.report import FitReport
from equivae.operators.representation import generated
from equivae.operators.solve import Solved, finished, solved
from equivae.operators.transform import FittedTransform, inverse_consistency, is_involution
from equivae.options import SIDE, at_least, check_value
from equivae.transforms import Group, Transform, resolve_transforms
from equivae.transforms.members import is_random

__all__ = ["fit_latent_op", "fit_operators"]


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
    layers: int = 3,
    objective: Objective = "latent",
    border: bool = True,
    magnitude: int = 0,
    phases: bool = True,
    network: NetworkSize | None = None,
    max_seconds: float = 300.0,
    crop: int | None = None,
    inverse: bool = True,
    progress: bool = True,
) -> FittedTransform:
    r"""Fit the latent op of a transform in closed form; the VAE stays bit for bit as it is.

    A flip changes where a latent cell is and also what its channels say. So the plain latent op `S` is
    followed by a small convolution, `ρ(z) = W * S(z) + b`, which solves

    .. math:: \min_{W, b} \sum_x \lVert W * S(E(x)) + b - E(T(x)) \rVert^2 + \lambda \lVert W \rVert^2

    by its normal equations, accumulated in one pass whose memory does not depend on the number of images.
    The ridge is the one with the least error on held-out images; then both sets are solved together. The
    inverse is fitted in the same pass, and an involution such as a flip learns from both directions.

    Resampled transforms (scale, zoom, rotate, shifts by parts of a cell) have no plain latent op before the
    convolution, which would lose what lies below a cell: the cells of the new grid are linear maps of the
    untouched cells around their place, one map for every phase (see `PhaseOperator`). With too few cells for
    a rotation's phases the latent is interpolated first after all, and the report says so.

    Least squares of latents is not least squares of pictures. `objective="decoded"` goes on from it with
    gradient steps on the error of what the latent op decodes to; the latent's own error rises as that falls.

    Args:
        vae: a diffusers autoencoder or any module with the same calls, or where to load one from.
        transform: a transform or its name; resampled ones are fitted inside their mask. Of a random one that
            draws from finitely many, such as `"eqvae"`, every member is fitted.
        images: anything that `equivae.data.load_images` takes; a few hundred photographs are enough.
        kernel_size: odd number of latent cells along the axes that the transform moves, or `"auto"`: the
            smallest of 1, 3, 5 and 7 whose decoded PSNR on images that it was not fitted on is within
            0.1 dB of the best; the evidence is in `report.candidates`.
        method: `"linear"`, or `"network"`: a small residual network is trained on the same pairs on top
            of the convolution (a gradient method, and no longer closed form). `"conjugation"`: an invertible
            network in whose coordinates a flip or quarter turn is plain, so that the law of the group holds
            exactly, up to rounding (see `ConjugatedOperator`); the inverse needs no fit.
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
        mixed_precision: encode under autocast: `"no"`, `"fp16"` or `"bf16"`, under which gradient steps
            decode too.
        seed: of the split and of the network.
        max_train_steps: of the network, or of the decoded objective.
        learning_rate: of these steps; a network's own layers take three times as much.
        width: channels inside the network, or inside each coupling of a conjugation.
        layers: of the network; a conjugation has two couplings for each, and two more.
        objective: `"latent"`, or `"decoded"`: gradient steps on the decoded error follow, and the best on
            held-out images is kept. The VAE has to let gradients through its decoder.
        border: whether a channel of ones lies beside the zero-padded latent, which tells the operator
            where the border is.
        magnitude: side of a kernel over `|z|` beside that over `z`, such as 3; 0 for none.
        phases: whether resampled transforms are fitted from the untouched latent, phase by phase.
        network: `"small"`, `"medium"` or `"large"`, instead of `method="network"` with a width and layers:
            32 and 3, 64 and 3, or 128 and 4. Under `method="conjugation"` the size of that.
        max_seconds: of the steps of each operator; the cosine ends with them.
        crop: side in pixels of random crops of the images that the steps learn from, encoded anew each
            time; `None` for the whole images, which are encoded once.
        inverse: whether the inverse is fitted too. Its steps take as long again; an involution is its own.
        progress: show a progress bar.

    Returns a `FittedTransform`, a transform like any other, with a `report`; for a random transform a
    `FittedFamily`, which draws as before and has `reports`. Raises `InputError` for an
    unknown transform, fewer than two images, images that the VAE cannot take, and, with `ridge=0`, for
    fewer cells than unknowns. A conjugation is refused for transforms that are no flips, quarter turns or
    changes of values that undo themselves.

    The nearest published work fits maps between features of networks (Lenc and Vedaldi, arXiv 1411.5908)
    and closed-form maps between latent spaces (Maiorca et al., 2311.00664); DecFormer (2512.05198) asks that
    the op on the latent equal the op on the pixels after decoding. Ours: the closed form for pretrained
    latent-diffusion autoencoders, judged by decoding.

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
    if network is not None:
        method = "network" if method == "linear" else method
        width, layers = network_shape(network)
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
        network=NetworkOptions(
            max_train_steps,
            learning_rate,
            width=width,
            seed=seed,
            layers=layers,
            max_seconds=max_seconds,
            crop=crop,
        ),
        progress=progress,
        objective=objective,
        border=border,
        magnitude=magnitude,
        phases=phases,
        inverse=inverse,
    )
    wanted = resolve_transforms(transform)
    if len(wanted) != 1:
        raise InputError(
            f"fit_latent_op fits one transform, {transform!r} stands for {len(wanted)}; use "
            "fit_latent_group for a group."
        )
    if involution and not is_involution(wanted[0]):
        raise InputError(
            f"transform {wanted[0].name!r} is not an involution, so it cannot be fitted as one."
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
    fitted: Any
    if is_random(wanted[0]):
        fitted = fit_family(autoencoder, wanted[0], dataset, options, fit_operators)
    else:
        fitted = fit_operators(autoencoder, wanted, dataset, options)[wanted[0].name]
    return fitted if name is None else fitted.named(name)  # type: ignore[no-any-return]


@at_top_level()
def fit_operators(
    vae: Autoencoder,
    transforms: Sequence[Transform],
    images: ImageDataset,
    options: FitOptions,
    group: Group | None = None,
) -> dict[str, FittedTransform]:
    """Operators of several transforms from one pass, by the transforms' names.

    Args:
        vae: the VAE.
        transforms: what is fitted.
        images: what it is fitted on.
        options: of the fit.
        group: whose law `method="conjugation"` keeps; by default that of each transform's own powers.
    """
    began = time.perf_counter()
    transforms = [vae.place(transform) for transform in transforms]
    laws = {}
    if options.method == "conjugation":
        laws = {transform.name: group or generated(transform) for transform in transforms}
    # A conjugation starts from one matrix for all cells.
    solving = replace(options, kernel_size=1) if laws else options
    problems, held_out_images = gather(vae, transforms, images, solving)
    training = images.split(options.validation_split, options.seed)[0]
    found: dict[str, Solved] = {}
    for law in dict.fromkeys(laws.values()):
        found |= conjugated(problems, law, vae, training, options)
    if not laws:
        found = _each(problems, transforms, vae, training, options)
    fingerprint = Fingerprint.of(vae)
    fitted = {
        transform.name: _fitted(transform, problems, found, options, fingerprint)
        for transform in transforms
    }
    seconds = round(time.perf_counter() - began, 2)
    for made in fitted.values():
        assert made.report is not None
        made.report = replace(
            made.report, seconds=seconds, images=len(images), held_out_images=held_out_images
        )
    return fitted


def _each(
    problems: dict[str, Problem],
    transforms: Sequence[Transform],
    vae: Autoencoder,
    training: ImageDataset,
    options: FitOptions,
) -> dict[str, Solved]:
    """An operator for every transform and every inverse, each on its own."""
    found: dict[str, Solved] = {}
    for transform in transforms:
        found[transform.name] = _found(problems[transform.name], vae, training, options)
    ways_back = {_inverse_name(transform): transform for transform in transforms}
    for name, problem in problems.items():
        if name not in found:  # an inverse takes the size that its transform was given
            forward = ways_back[name]
            sized = replace(problem, kernels=[found[forward.name].kernel])
            found[name] = _found(sized, vae, MovedImages(training, forward), options)
    return found


def _found(problem: Problem, vae: Autoencoder, training: Images, options: FitOptions) -> Solved:
    chosen = solved(problem, vae, options)
    found = finished(problem, chosen, vae, training, options)
    # An operator that was refitted on all images is judged by the one before.
    judged = found if options.trained else replace(chosen, latent_error=found.latent_error)
    return beside_plain(problem, judged, found, vae)


def _fitted(
    transform: Transform,
    problems: dict[str, Problem],
    found: dict[str, Solved],
    options: FitOptions,
    vae: Fingerprint,
) -> FittedTransform:
    problem, own = problems[transform.name], found[transform.name]
    back = found.get(_inverse_name(transform))
    inverse_operator = None if back is None else back.operator
    made = FittedTransform(transform, own.operator, inverse_operator, vae=vae)
    made.check_finite()
    equations = problem.equations
    consistency = None
    if back is not None and problem.held_out:
        consistency = inverse_consistency(made, problem.held_out[0].latent)
    made.report = FitReport(
        transform=transform.name,
        method=options.method,
        kernel_size=own.operator.kernel_size,
        padding=options.padding,
        ridge=own.ridge,
        images=0,
        cells=equations.train.count + equations.held_out.count,
        held_out_images=0,
        grid_error=problem.grid_error,
        latent_error=own.latent_error,
        inverse_latent_error=None if back in (None, own) else back.latent_error,  # type: ignore[union-attr]
        inverse_consistency=consistency,
        candidates=own.candidates,
        objective=options.objective,
        decoded_psnr=own.decoded_psnr,
        plain_decoded_psnr=own.plain_psnr,
        is_plain=own.is_plain,
        interpolates=problem.interpolates,
    )
    return made


def _inverse_name(transform: Transform) -> str:
    try:
        return transform.inverse.name
    except NotImplementedError:
        return ""
