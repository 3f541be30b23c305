"""Fitting operators that keep the law of a group: first on latents, then on what they decode to."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from equivae.autoencoder import Autoencoder
from equivae.errors import InputError
from equivae.operators.beside_plain import warned
from equivae.operators.conjugation import ConjugatedOperator, Element
from equivae.operators.learning import Images, decoded_loss, latent_loss
from equivae.operators.modules import LatentOperator
from equivae.operators.options import FitOptions, NetworkOptions
from equivae.operators.problems import Problem, kernels_of
from equivae.operators.refine import Loss, refine
from equivae.operators.representation import plain_representation
from equivae.operators.solve import Solved, latent_error, operator_psnr, source_of
from equivae.transforms import Group

__all__ = ["conjugated"]

logger = logging.getLogger(__name__)

# Times the steps and the seconds, before those that decode.
_LATENT_STEPS, _LATENT_SECONDS = 4, 1 / 3
_RIDGE = 1e-6  # of the mean variance of a channel, for the first matrices
_DECODED_RATE = 0.3  # times the learning rate: the couplings have no closed form to stay near to


def conjugated(
    problems: Mapping[str, Problem],
    group: Group,
    vae: Autoencoder,
    training: Images,
    options: FitOptions,
) -> dict[str, Solved]:
    """Operators of the elements of a group that share one map and obey its law, by the elements' names.

    Args:
        problems: of the elements that are learnt from; the law gives the others.
        group: the identity first.
        vae: what decodes.
        training: the images of the training pairs.
        options: of the fit.

    Raises `InputError` for a group whose law it cannot keep, and
    for latents of one channel.
    """
    if vae.latent_channels < 2:
        raise InputError(
            "method='conjugation' couples one half of the latent channels with the other, and this VAE has "
            "one channel; use method='network'."
        )
    # The way back has other images, and the law gives it.
    found = {t.name: problems[t.name] for t in group if t.name in problems}
    learnt = {name: one for name, one in found.items() if one.training and one.training[0].forward}
    operator, elements = _start(learnt, group, vae, options)
    learning = _Learning(learnt, elements, vae, training, options)
    start = copy.deepcopy(operator)
    operator = learning.trained(operator)
    if all(a.equal(b) for a, b in zip(start.parameters(), operator.parameters(), strict=True)):
        logger.warning(
            "no step improved the latent ops of %s on held-out images, so they are the least-squares start; "
            "use more images or a lower learning rate.",
            ", ".join(repr(name) for name in found),
        )
    return {
        name: learning.chosen(problem, start.of(elements[name]), operator.of(elements[name]))
        for name, problem in found.items()
    }


def _start(
    learnt: Mapping[str, Problem], group: Group, vae: Autoencoder, options: FitOptions
) -> tuple[ConjugatedOperator, dict[str, Element]]:
    """The operator of the first element, one matrix for all cells, and how every element acts."""
    parts = {
        name: (
            torch.cat([pair.moved for pair in problem.training]),
            torch.cat([pair.target for pair in problem.training]),
        )
        for name, problem in learnt.items()
    }
    maps, means, covariances = {}, [], []
    for name, both in parts.items():
        x, y = map(_rows, both)
        mean, covariance = x.mean(0), torch.cov(x.T, correction=0)
        ridge = _RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)
        crossed = (x - mean).T @ (y - y.mean(0)) / len(x)
        matrix = torch.linalg.solve(covariance + ridge, crossed).T
        maps[name] = torch.cat([matrix, (y.mean(0) - matrix @ mean)[:, None]], 1)
        means.append(mean)
        covariances.append(covariance)
    mean, covariance = torch.stack(means).mean(0), torch.stack(covariances).mean(0)
    plain = plain_representation(group, maps, mean, covariance)
    first = next(iter(learnt))
    operator = ConjugatedOperator(
        plain.elements[first],
        vae.latent_channels,
        kernels_of(options, learnt[first].transform, parts[first][0].ndim - 2, vae)[-1],
        options.network.width,
        2 * (options.network.layers + 1),
        options.network.seed,
    )
    operator.map.begin(plain.basis, plain.origin)
    return operator.to(vae.device), plain.elements


def _rows(cells: Tensor) -> Tensor:
    return cells.movedim(1, -1).flatten(0, -2).double().cpu()


@dataclass(frozen=True)
class _Learning:
    """What the map is trained on: a random element for every step."""

    learnt: Mapping[str, Problem]
    elements: Mapping[str, Element]
    vae: Autoencoder
    training: Images
    options: FitOptions

    def trained(self, operator: ConjugatedOperator) -> ConjugatedOperator:
        """The best of it on held-out images."""
        options, network = self.options, self.options.network
        sources = {
            name: source_of(problem, self.vae, self.training, options, moves_grid=True)
            for name, problem in self.learnt.items()
        }
        latent = {name: latent_loss(source) for name, source in sources.items()}
        if options.objective == "latent":
            return self._steps(operator, latent, self._latent_score, network)
        first = replace(
            network,
            max_train_steps=_LATENT_STEPS * network.max_train_steps,
            max_seconds=_LATENT_SECONDS * network.max_seconds,
        )
        operator = self._steps(operator, latent, self._latent_score, first)
        decoded = {
            name: decoded_loss(
                source, self.vae, self.learnt[name].transform, options.mixed_precision
            )
            for name, source in sources.items()
        }
        last = replace(
            network,
            learning_rate=_DECODED_RATE * network.learning_rate,
            max_seconds=(1 - _LATENT_SECONDS) * network.max_seconds,
        )
        return self._steps(operator, decoded, self._decoded_score, last)

    def chosen(
        self, problem: Problem, start: ConjugatedOperator, operator: ConjugatedOperator
    ) -> Solved:
        """An operator with its errors on held-out images, beside what it started from."""
        both = [
            Solved(
                one,
                one.kernel,
                ridge=0.0,
                latent_error=latent_error(problem, one),
                decoded_psnr=operator_psnr(problem, self.vae, one) if problem.decoded() else None,
            )
            for one in (start, operator)
        ]
        labels = zip(both, ("start", "conjugation"), strict=True)
        candidates = [one.candidate(label) for one, label in labels]
        return warned(replace(both[1], candidates=candidates), problem, self.vae)

    def _steps(
        self,
        operator: ConjugatedOperator,
        losses: Mapping[str, Loss],
        score: Callable[[LatentOperator], float],
        network: NetworkOptions,
    ) -> ConjugatedOperator:
        names = list(self.learnt)

        def loss(one: LatentOperator, rows: Tensor, generator: torch.Generator) -> Tensor:
            name = names[int(torch.randint(len(names), (), generator=generator))]
            return losses[name](self._of(one, name), rows, generator)

        count = sum(len(pair.latent) for pair in self.learnt[names[0]].training)
        before = copy.deepcopy(operator)
        better = refine(operator, loss, count, self.vae, score, network, self.options.progress)
        assert better is None or isinstance(better, ConjugatedOperator)
        return before if better is None else better

    def _latent_score(self, one: LatentOperator) -> float:
        return -sum(latent_error(p, self._of(one, name)) for name, p in self.learnt.items())

    def _decoded_score(self, one: LatentOperator) -> float:
        return sum(
            operator_psnr(p, self.vae, self._of(one, name)) for name, p in self.learnt.items()
        )

    def _of(self, one: LatentOperator, name: str) -> ConjugatedOperator:
        assert isinstance(one, ConjugatedOperator)
        return one.of(self.elements[name])
