"""What fitted operators are, as a representation: closure, involutions, signs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from equivae.errors import InputError
from equivae.operators.modules import ConvOperator
from equivae.transforms import Transform

__all__ = ["SignSignature", "closure_error", "nearest_involution", "sign_signature"]


@dataclass(frozen=True)
class SignSignature:
    """How the channels respond to an involution, from the eigenvalues of its operator.

    Attributes:
        positive: channels (up to a change of basis) that keep their sign.
        negative: channels that flip it.
        residual: `max |λ - sign(Re λ)|` over the eigenvalues; 0 for a true involution.
        eigenvalues: real parts, descending.
    """

    positive: int
    negative: int
    residual: float
    eigenvalues: tuple[float, ...]


@torch.no_grad()
def sign_signature(operator: ConvOperator) -> SignSignature:
    """The signature of an operator: of its action on constant latents, the sum of its taps."""
    values = torch.linalg.eigvals(operator.weight.detach().double().cpu().flatten(2).sum(2))
    signs = torch.where(values.real >= 0, 1.0, -1.0)
    positive = int((signs > 0).sum())
    residual = float((values - signs).abs().max())
    ordered = tuple(float(v) for v in values.real.sort(descending=True).values)
    return SignSignature(positive, len(values) - positive, residual, ordered)


@torch.no_grad()
def nearest_involution(operator: ConvOperator) -> ConvOperator:
    r"""A 1x1 operator with its eigenvalues rounded to +1 and -1, the matrix sign function of it.

    The bias is projected so that `W b + b = 0`, which makes `z -> W z + b` undo itself.

    Raises `InputError` for a larger kernel, whose nearest involution has no finite size.
    """
    if operator.kernel_size != 1 or operator.magnitude:
        raise InputError(
            f"only 1x1 operators can be made involutions, got kernel_size={operator.kernel_size}."
        )
    matrix = operator.weight.detach().double().cpu().flatten(1)
    sign = matrix
    for _ in range(100):  # Newton's iteration, Higham, Functions of Matrices, eq. 5.16
        following = (sign + torch.linalg.inv(sign)) / 2
        step = float((following - sign).norm() / following.norm())
        sign = following
        if step < 1e-14:
            break
    if not torch.isfinite(sign).all():
        raise InputError(
            "the operator has imaginary eigenvalues, so no involution is nearest to it."
        )
    made = ConvOperator(operator.channels, operator.kernel, operator.padding)
    made.weight.copy_(sign.view_as(made.weight))
    bias = operator.bias.detach().double().cpu()
    made.bias.copy_((bias - sign @ bias) / 2)
    return made


@torch.no_grad()
def closure_error(outer: Transform, inner: Transform, product: Transform, latents: Tensor) -> float:
    r"""`‖ρ(g) ρ(h) z - ρ(gh) z‖ / ‖ρ(gh) z‖` on latents `(B, c, *grid)`.

    Args:
        outer: `g`.
        inner: `h`.
        product: `gh`.
        latents: what to measure it on.
    """
    direct = product.latent(latents).double()
    difference = outer.latent(inner.latent(latents)).double() - direct
    return math.sqrt(float(difference.square().sum() / direct.square().sum()))
