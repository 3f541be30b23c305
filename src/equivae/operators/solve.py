"""From equations to an operator: candidates on training images, a choice on held-out ones, a refit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.operators.decoding import decoded_psnr
from equivae.operators.learning import Crops, Examples, Images, Source, decoded_loss, latent_loss
from equivae.operators.modules import ConvOperator, Kernel, LatentOperator, ResidualOperator
from equivae.operators.moments import RIDGES
from equivae.operators.options import FitOptions
from equivae.operators.pairs import Pair
from equivae.operators.problems import Problem, squares
from equivae.operators.refine import refine
from equivae.operators.report import Candidate
from equivae.operators.structure import nearest_involution

__all__ = [
    "INVISIBLE_DB",
    "Solved",
    "candidates",
    "choose",
    "finished",
    "latent_error",
    "operator_psnr",
    "solved",
    "source_of",
]

INVISIBLE_DB = 60.0  # a decode this close differs by less than the rounding to 8 bits
_AUTO_MARGIN_DB = 0.1


@dataclass(frozen=True)
class Solved:
    """An operator, what it was solved with, and its errors on held-out images.

    Attributes:
        candidates: what it was chosen from, if there was a choice.
        plain_psnr: what the plain latent op decodes to, where that was in question.
        is_plain: whether this is the plain latent op, because the fit lost to it.
    """

    operator: LatentOperator
    kernel: Kernel | None
    ridge: float
    latent_error: float
    decoded_psnr: float | None = None
    candidates: list[Candidate] = field(default_factory=list)
    plain_psnr: float | None = None
    is_plain: bool = False

    def candidate(self, method: str = "linear") -> Candidate:
        """What a report says of it."""
        return Candidate(method, self.operator.kernel_size, self.latent_error, self.decoded_psnr)


def candidates(problem: Problem, options: FitOptions) -> list[Solved]:
    """The operator of every kernel, from training images alone, with its error on held-out ones."""
    equations = problem.equations
    ridges = RIDGES if options.ridge is None else (options.ridge,)
    found = []
    for kernel in problem.kernels:
        solution, error = equations.train.best(equations.held_out, kernel, ridges)
        operator = equations.train.operator(solution)
        ridge = solution[0].ridge if isinstance(solution, list) else solution.ridge
        found.append(Solved(operator, kernel, ridge, error))
    return found


def solved(problem: Problem, vae: Autoencoder, options: FitOptions) -> Solved:
    """The best candidate; by what the decoder makes of it, if there is a choice."""
    found = candidates(problem, options)
    if len(found) > 1:
        found = [
            replace(one, decoded_psnr=operator_psnr(problem, vae, one.operator)) for one in found
        ]
    chosen = choose(found)
    return replace(chosen, candidates=[one.candidate() for one in found] if len(found) > 1 else [])


def choose(found: list[Solved]) -> Solved:
    """The first that is within 0.1 dB of the best, up to where a difference stops to be visible."""
    if found[0].decoded_psnr is None:
        return min(found, key=lambda one: one.latent_error)
    scores = [min(one.decoded_psnr or 0.0, INVISIBLE_DB) for one in found]
    near = (one for one, s in zip(found, scores, strict=True) if s >= max(scores) - _AUTO_MARGIN_DB)
    return next(near)


def finished(
    problem: Problem,
    chosen: Solved,
    vae: Autoencoder,
    training: Images,
    options: FitOptions,
) -> Solved:
    """The chosen candidate solved for on all images, or trained on from there.

    Args:
        problem: what it is a candidate for.
        chosen: the candidate.
        vae: what decodes.
        training: the images of the training pairs, for a decoded objective.
        options: of the fit.
    """
    if options.trained and problem.training:
        return _trained(problem, chosen, vae, training, options)
    operator = problem.equations.refit(chosen.ridge, chosen.kernel)
    error = chosen.latent_error
    if options.involution:
        assert isinstance(chosen.operator, ConvOperator)
        assert isinstance(operator, ConvOperator)
        error = latent_error(problem, nearest_involution(chosen.operator))
        operator = nearest_involution(operator)
    return replace(chosen, operator=operator.to(vae.device), latent_error=error)


def _trained(
    problem: Problem,
    chosen: Solved,
    vae: Autoencoder,
    training: Images,
    options: FitOptions,
) -> Solved:
    """Gradient steps from the candidate; its equations stay those of training images."""
    start = replace(chosen, decoded_psnr=operator_psnr(problem, vae, chosen.operator))
    operator = _with_network(start.operator, options)
    source = source_of(problem, vae, training, options, problem.moves_grid)
    loss = latent_loss(source)
    if options.objective == "decoded":
        loss = decoded_loss(source, vae, problem.transform, options.mixed_precision)

    def score(one: LatentOperator) -> float:
        return operator_psnr(problem, vae, one)

    rows = sum(len(pair.latent) for pair in problem.training)
    better = refine(operator, loss, rows, vae, score, options.network, options.progress)
    if better is None:  # then all images have a say, as they have in a closed form
        refitted = problem.equations.refit(chosen.ridge, chosen.kernel).to(vae.device)
        found = replace(start, operator=_with_network(refitted, options))
    else:
        found = replace(
            start,
            operator=better,
            latent_error=latent_error(problem, better),
            decoded_psnr=operator_psnr(problem, vae, better),
        )
    before = chosen.candidates or [start.candidate()]
    label = "network" if options.method == "network" else "decoded"
    return replace(found, candidates=[*before, found.candidate(label)])


def _with_network(operator: LatentOperator, options: FitOptions) -> LatentOperator:
    """The same map, with a network on top if there is to be one."""
    if options.method != "network":
        return operator
    network = options.network
    return ResidualOperator(operator, network.width, network.layers, network.seed).to(
        next(operator.parameters()).device
    )


def source_of(
    problem: Problem, vae: Autoencoder, training: Images, options: FitOptions, moves_grid: bool
) -> Source:
    """What the steps learn from, for an operator that moves the grid itself or does not."""
    if options.network.crop is not None:
        return Crops(
            training,
            options.network.crop,
            vae,
            problem.transform,
            moves_grid,
            options.mixed_precision,
        )
    pairs = problem.training
    inputs = [pair.latent if moves_grid else pair.moved for pair in pairs]
    targets = [pair.target for pair in pairs]
    return Examples.of(inputs, targets, training, pairs[0].mask)


@torch.no_grad()
def latent_error(problem: Problem, operator: LatentOperator) -> float:
    """`‖ρ E(x) - E(T x)‖ / ‖E(T x)‖` over all held-out pairs."""
    error = power = 0.0
    for pair in problem.held_out:
        given = problem.inputs(pair, operator)
        one = squares(operator.to(given.device)(given), pair.target, pair.mask)
        error, power = error + one[0], power + one[1]
    return math.sqrt(error / power)


def operator_psnr(problem: Problem, vae: Autoencoder, operator: LatentOperator) -> float:
    """PSNR of `D(ρ E(x))` against `T(x)` on held-out images, inside the mask."""
    transform, moving = problem.transform, operator.to(vae.device)

    def batch(pair: Pair) -> tuple[Tensor, Tensor, Tensor | None]:
        assert pair.source is not None
        with torch.no_grad():
            moved = moving(problem.inputs(pair, moving))
        target, mask = transform.pixel(pair.source), transform.mask(pair.source)
        return moved.to(vae.device, vae.dtype), target, mask

    return decoded_psnr(vae, (batch(pair) for pair in problem.decoded()))
