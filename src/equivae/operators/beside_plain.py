"""A fit beside the plain latent op: what loses to it is never handed over in silence."""

from __future__ import annotations

import warnings
from dataclasses import replace

from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.operators.decoding import decoded_psnr
from equivae.operators.modules import ConvOperator
from equivae.operators.problems import Problem
from equivae.operators.solve import INVISIBLE_DB, Solved, operator_psnr

__all__ = ["beside_plain", "warned"]

_CLEARLY = 0.5  # of the plain latent op's error: a fit that is so much nearer need not be decoded
_MARGIN_DB = 0.05


def beside_plain(problem: Problem, judged: Solved, found: Solved, vae: Autoencoder) -> Solved:
    """What was found, beside the plain latent op, which it is where the fit is worse in both errors.

    Args:
        problem: whose held-out images judge.
        judged: the operator before the refit on all images, which has not seen these.
        found: the operator that would be returned.
        vae: what decodes.

    Warns when the plain latent op decodes visibly better, and when it is returned.
    """
    plain_error = problem.grid_error
    if judged.latent_error <= _CLEARLY * plain_error or not problem.held_out:
        return found
    fitted = plain = None
    if problem.decoded():
        fitted = judged.decoded_psnr or operator_psnr(problem, vae, judged.operator)
        plain = _plain_psnr(problem, vae)
        found = replace(found, decoded_psnr=fitted, plain_psnr=plain)
    loses = fitted is None or plain is None or _worse(fitted, plain)
    name = problem.transform.name
    if judged.latent_error > plain_error * (1 + 1e-6) and loses:
        warnings.warn(
            f"the latent op fitted for {name!r} is further from held-out latents than the plain one "
            f"({judged.latent_error:.3f} against {plain_error:.3f}), so the plain one is returned; fit on "
            "more images, or with a smaller kernel_size.",
            stacklevel=2,
        )
        operator = ConvOperator(vae.latent_channels, (1,) * len(judged.operator.kernel)).to(
            vae.device
        )
        return replace(
            found,
            operator=operator,
            latent_error=plain_error,
            decoded_psnr=plain,
            is_plain=True,
        )
    if fitted is not None and plain is not None and loses:
        _warn_of_decodes(name, fitted, plain)
    return found


def warned(found: Solved, problem: Problem, vae: Autoencoder) -> Solved:
    """The same beside the plain latent op, for one that cannot be replaced alone. Warns where it loses."""
    fitted = found.decoded_psnr
    if found.latent_error <= _CLEARLY * problem.grid_error or fitted is None:
        return found
    plain = _plain_psnr(problem, vae)
    if _worse(fitted, plain):
        _warn_of_decodes(problem.transform.name, fitted, plain)
    return replace(found, plain_psnr=plain)


def _warn_of_decodes(name: str, fitted: float, plain: float) -> None:
    warnings.warn(
        f"the latent op fitted for {name!r} decodes at {fitted:.2f} dB on held-out images and the plain "
        f"one at {plain:.2f} dB; use the plain one for decoding, or fit on more images or with "
        "objective='decoded'.",
        stacklevel=3,
    )


def _plain_psnr(problem: Problem, vae: Autoencoder) -> float:
    return decoded_psnr(vae, (_plain(problem, i, vae) for i in range(len(problem.decoded()))))


def _worse(fitted: float, plain: float) -> bool:
    return fitted < min(plain, INVISIBLE_DB) - _MARGIN_DB


def _plain(problem: Problem, i: int, vae: Autoencoder) -> tuple[Tensor, Tensor, Tensor | None]:
    pair, transform = problem.decoded()[i], problem.transform
    assert pair.source is not None
    target, mask = transform.pixel(pair.source), transform.mask(pair.source)
    return pair.moved.to(vae.device, vae.dtype), target, mask
