"""A linear map between two grids of cells, solved for on pairs of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from equivae.errors import InputError
from equivae.operators.geometry import phase_operator
from equivae.operators.moments import RIDGES
from equivae.operators.phases import Geometry, PhaseOperator
from equivae.operators.problems import Equations
from equivae.operators.regression import PhaseRegression

__all__ = ["LinearFit", "solve_pairs", "unfitted"]

_MOST_WINDOW = 4096  # entries; above, solving takes minutes and hundreds of megabytes


@dataclass(frozen=True)
class LinearFit:
    """What was solved: the operator of all pairs, and how it was chosen.

    Attributes:
        error: `‖M a - b‖ / ‖b‖` on held-out pairs, of the operator of training pairs alone.
        cells: how many pairs of cells the equations hold.
    """

    operator: PhaseOperator
    ridge: float
    error: float
    cells: int


def unfitted(
    source: Tensor, target: Tensor, kernel_size: int, *, border: bool, magnitude: bool
) -> PhaseOperator:
    """The operator from cells `(B, c, h, w)` to others `(B, c', h', w')`, whose sides have one ratio.

    Raises `InputError` for sides that have two, and for a window with too many entries.
    """
    ratios = [Fraction(b, a) for a, b in zip(source.shape[-2:], target.shape[-2:], strict=True)]
    if ratios[0] != ratios[1]:
        raise InputError(
            f"latents of {tuple(source.shape[-2:])} cells and of {tuple(target.shape[-2:])} cells have no "
            "one ratio; choose images whose sides divide by both factors."
        )
    one = (ratios[0].numerator, ratios[0].denominator)
    operator = phase_operator(
        Geometry("scale", ratio=(one, one)),
        target.shape[1],
        (source.shape[-2], source.shape[-1]),
        target.shape[-2] * target.shape[-1],
        kernel_size,
        _MOST_WINDOW,
        border=border,
        magnitude=magnitude,
        inputs=source.shape[1],
    )
    if operator is None:
        raise InputError(
            f"images of {source.shape[-2]}x{source.shape[-1]} latent cells are too small to fit a map to "
            f"{target.shape[-2]}x{target.shape[-1]} cells; choose larger images."
        )
    return operator


def solve_pairs(
    template: PhaseOperator,
    training: Iterable[tuple[Tensor, Tensor]],
    held_out: Iterable[tuple[Tensor, Tensor]],
    ridge: float | None,
) -> LinearFit:
    """Least squares on training pairs, the ridge that suits held-out pairs, then once more on both.

    Raises `InputError` for `ridge=0` with fewer cells than unknowns.
    """
    equations = Equations(PhaseRegression(template), PhaseRegression(template))
    for regression, pairs in ((equations.train, training), (equations.held_out, held_out)):
        for source, target in pairs:
            regression.add(source, target)
    train = equations.train
    if ridge == 0 and train.fewest <= train.entries:
        raise InputError(
            f"ridge=0 leaves the equations singular: {train.fewest} cells for {train.entries} unknowns; "
            "pass more images, a smaller kernel_size, or a ridge."
        )
    solution, error = train.best(equations.held_out, None, RIDGES if ridge is None else (ridge,))
    chosen = solution[0].ridge
    operator = equations.refit(chosen, None)
    assert isinstance(operator, PhaseOperator)
    return LinearFit(operator, chosen, error, train.count + equations.held_out.count)
