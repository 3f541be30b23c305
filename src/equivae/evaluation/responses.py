"""How the latents of a VAE respond to transforms, measured, and what would help it, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch.utils.data import DataLoader

from equivae.autoencoder import Autoencoder, measuring
from equivae.data.sources import ImageDataset, collate
from equivae.evaluation.latents import LatentSums
from equivae.evaluation.roundtrip import mean_reconstruction_psnr
from equivae.operators import ConvOperator, FitOptions, SignSignature, sign_signature
from equivae.operators.problems import Problem, gather
from equivae.operators.regression import PatchRegression
from equivae.operators.solve import INVISIBLE_DB, candidates, choose, operator_psnr
from equivae.operators.transform import is_involution

if TYPE_CHECKING:
    from equivae.transforms import Transform

__all__ = ["LatentResponses", "TransformAnalysis", "measure_responses"]

_CLOSE_DB, _NEAR_DB = 0.5, 3.0
_SPECTRUM_IMAGES = 32


@dataclass(frozen=True)
class TransformAnalysis:
    """How the latents respond to one transform, on held-out images.

    Attributes:
        grid_error: `‖S E(x) - E(T x)‖ / ‖E(T x)‖`, the plain latent op.
        fitted_errors: kernel size to the same error with a fitted operator.
        grid_psnr: PSNR in dB of the plain latent op's decode against `T x`.
        fitted_psnr: kernel size to that of the fitted operator.
        channel_grid_errors: the plain latent op's error of every channel, relative to its spread.
        channel_fitted_errors: the same with the largest operator.
        signature: signs of the 1x1 operator of an involution; `None` for other transforms.
        recommendation: what would help, in a sentence.
    """

    grid_error: float
    fitted_errors: dict[int, float]
    grid_psnr: float
    fitted_psnr: dict[int, float]
    channel_grid_errors: list[float]
    channel_fitted_errors: list[float]
    signature: SignSignature | None
    recommendation: str


@dataclass(frozen=True)
class LatentResponses:
    """The numbers of `LatentAnalysis`, which says what they are."""

    images: int
    reconstruction_psnr: float
    transforms: dict[str, TransformAnalysis]
    latent_spectrum: list[float]
    image_spectrum: list[float]
    channel_deviations: list[float]

    @property
    def recommendation(self) -> str:
        """The sentences of all transforms."""
        return "\n".join(f"{name}: {t.recommendation}" for name, t in self.transforms.items())


def measure_responses(
    vae: Autoencoder, images: ImageDataset, transforms: Sequence[Transform], options: FitOptions
) -> LatentResponses:
    """The plain latent op of every transform and fitted ones of four sizes, on held-out images.

    Args:
        vae: the autoencoder.
        images: at least two.
        transforms: with distinct names, at least one.
        options: of the fits, with `kernel_size="auto"`.

    Raises `InputError` for images and transforms that cannot be fitted.
    """
    options = replace(options, phases=False)  # plain latent ops are what is asked about
    problems, _ = gather(vae, transforms, images, options)
    held_out = [p.source for p in problems[transforms[0].name].decoded() if p.source is not None]
    reconstruction = mean_reconstruction_psnr(vae, held_out)
    found = {t.name: _analyze(vae, problems[t.name], options, reconstruction) for t in transforms}
    sums = _latent_sums(vae, images, options.eval_batch_size).statistics([])
    return LatentResponses(
        images=len(images),
        reconstruction_psnr=reconstruction,
        transforms=found,
        latent_spectrum=sums.spectrum,
        image_spectrum=sums.image_spectrum,
        channel_deviations=sums.channel_deviations,
    )


def _analyze(
    vae: Autoencoder, problem: Problem, options: FitOptions, reconstruction: float
) -> TransformAnalysis:
    found = [
        replace(one, decoded_psnr=operator_psnr(problem, vae, one.operator))
        for one in candidates(problem, options)
    ]
    held_out = problem.equations.held_out
    assert isinstance(held_out, PatchRegression)
    grid = held_out.grid_move()
    grid_psnr = operator_psnr(problem, vae, held_out.operator(grid))
    fitted_psnr = {
        one.operator.kernel_size: math.nan if one.decoded_psnr is None else one.decoded_psnr
        for one in found
    }
    smallest, chosen = found[0].operator, choose(found).operator
    assert isinstance(smallest, ConvOperator)
    largest = problem.equations.train.solve(found[-1].ridge, found[-1].kernel)
    return TransformAnalysis(
        grid_error=problem.grid_error,
        fitted_errors={one.operator.kernel_size: one.latent_error for one in found},
        grid_psnr=grid_psnr,
        fitted_psnr=fitted_psnr,
        channel_grid_errors=held_out.channel_errors(grid),
        channel_fitted_errors=held_out.channel_errors(largest),
        signature=sign_signature(smallest) if is_involution(problem.transform) else None,
        recommendation=recommend(
            reconstruction, grid_psnr, fitted_psnr[chosen.kernel_size], chosen.kernel_size
        ),
    )


def recommend(reconstruction: float, grid: float, fitted: float, kernel_size: int) -> str:
    """What would help, from the PSNR in dB of a reconstruction, the plain and a fitted latent op."""
    if math.isnan(reconstruction + grid + fitted):
        return "the VAE or the operator gives NaN or infinite values, so that nothing can be said."
    reconstruction, grid, fitted = (
        min(value, INVISIBLE_DB) for value in (reconstruction, grid, fitted)
    )
    size = f"{kernel_size}x{kernel_size}"
    if reconstruction - grid <= _CLOSE_DB:
        return (
            f"the plain latent op decodes within {max(0.0, reconstruction - grid):.1f} dB of a "
            "reconstruction, nothing is needed."
        )
    gap = f"{max(0.0, reconstruction - fitted):.1f} dB below a reconstruction"
    plain = f"the plain latent op is {reconstruction - grid:.1f} dB below"
    if reconstruction - fitted <= _CLOSE_DB:
        return f"a fitted {size} operator is enough, {gap} ({plain})."
    if reconstruction - fitted <= _NEAR_DB:
        return (
            f"a fitted {size} operator is {gap} ({plain}); fine-tune decoder and operator from it, or "
            "symmetrize for exactness under the plain latent op."
        )
    return (
        f"a fitted {size} operator is {gap} ({plain}), too far to start from; symmetrize, or fine-tune "
        "all weights."
    )


def _latent_sums(vae: Autoencoder, images: ImageDataset, batch_size: int) -> LatentSums:
    some = images.subset(range(min(_SPECTRUM_IMAGES, len(images))))
    sums = LatentSums()
    with measuring(vae.module):
        for batch in DataLoader(some, batch_size, collate_fn=collate):  # type: ignore[arg-type]
            x = batch.to(vae.device, vae.dtype)
            sums.add(x, vae.encode(x))
    return sums
