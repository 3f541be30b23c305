"""Least squares from sums alone: what is kept of any number of rows is one matrix of products."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RIDGES", "LinearMap", "Moments"]

RIDGES = tuple(10.0**e for e in range(-9, 2))
"""The ridges tried, relative to the mean variance of an entry."""

_MOST_FOR_EIGENVECTORS = 1200  # entries; above, a Cholesky factor for every ridge is cheaper


@dataclass(frozen=True)
class LinearMap:
    """`y = a @ weight + bias`: weight `(entries, outputs)`, bias `(outputs,)`, float64, and the ridge."""

    weight: Tensor
    bias: Tensor
    ridge: float


class Moments:
    r"""Sums over rows `a` (entries of a window) and `y` (what is to be told from them), in float64.

    What the first batch has as its mean is taken off every row before products are formed, so that
    neither the products, in float32 for float32 rows, nor the differences of sums later lose the variance
    beside a large mean. It keeps `Σ a aᵀ`, `Σ a yᵀ`, `Σ a`, `Σ y` and `Σ y²` of what is left, and so its
    memory does not grow with the number of rows.
    """

    def __init__(self, entries: int, outputs: int) -> None:
        self.count = 0
        self.shift = torch.zeros(entries, dtype=torch.float64)
        self.goal_shift = torch.zeros(outputs, dtype=torch.float64)
        self.gram = torch.zeros(entries, entries, dtype=torch.float64)
        self.cross = torch.zeros(entries, outputs, dtype=torch.float64)
        self.sum = torch.zeros(entries, dtype=torch.float64)
        self.goal_sum = torch.zeros(outputs, dtype=torch.float64)
        self.goal_squares = torch.zeros(outputs, dtype=torch.float64)
        self._spectra: dict[bytes, tuple[Tensor, Tensor]] = {}

    def add(self, a: Tensor, y: Tensor) -> None:
        """Add rows: a `(N, entries)`, y `(N, outputs)`, float32 or float64."""
        if not len(a):
            return
        if not self.count:
            # Rounded to what the rows are made of, so that a constant entry becomes exactly 0.
            self.shift, self.goal_shift = (
                _kept(rows.double().mean(0).to(rows.dtype)) for rows in (a, y)
            )
        a, y = a - self.shift.to(a), y - self.goal_shift.to(y)
        self.count += len(a)
        self.gram += _kept(a.T @ a)
        self.cross += _kept(a.T @ y)
        self.sum += _kept(a.sum(0))
        self.goal_sum += _kept(y.sum(0))
        self.goal_squares += _kept(y.square().sum(0))
        self._spectra.clear()

    def __add__(self, other: Moments) -> Moments:
        """The sums over both sets of rows."""
        if not (self.count and other.count):
            return self if self.count else other
        joined = Moments(len(self.sum), len(self.goal_sum))
        joined.shift, joined.goal_shift = self.shift, self.goal_shift
        joined.count = self.count + other.count
        a, y = other.shift - self.shift, other.goal_shift - self.goal_shift
        joined.gram = self.gram + other.gram + _outer(other.sum, a) + _outer(a, other.sum)
        joined.gram += other.count * _outer(a, a)
        joined.cross = self.cross + other.cross + _outer(other.sum, y) + _outer(a, other.goal_sum)
        joined.cross += other.count * _outer(a, y)
        joined.sum = self.sum + other.sum + other.count * a
        joined.goal_sum = self.goal_sum + other.goal_sum + other.count * y
        moved = other.goal_squares + 2 * y * other.goal_sum + other.count * y.square()
        joined.goal_squares = self.goal_squares + moved
        return joined

    def solve(self, ridge: float, kept: Tensor | None = None) -> LinearMap:
        """The least-squares map from the `kept` entries (all of them by default); its bias is not penalised.

        Args:
            ridge: relative to the mean variance of an entry.
            kept: indices of entries.
        """
        kept = torch.arange(len(self.sum)) if kept is None else kept
        mean, goal_mean = self.sum[kept] / self.count, self.goal_sum / self.count
        weight = self._solve(kept, ridge)
        bias = goal_mean + self.goal_shift - (mean + self.shift[kept]) @ weight
        return LinearMap(weight, bias, ridge)

    def residuals(self, found: LinearMap, kept: Tensor | None = None) -> Tensor:
        """`Σ (a @ weight + bias - y)²` of every output over the rows added here."""
        kept = torch.arange(len(self.sum)) if kept is None else kept
        weight = found.weight
        bias = found.bias + self.shift[kept] @ weight - self.goal_shift
        predicted = self.sum[kept] @ weight
        squares = (
            ((self.gram[kept][:, kept] @ weight) * weight).sum(0)
            + 2 * predicted * bias
            + self.count * bias.square()
        )
        product = (self.cross[kept] * weight).sum(0) + self.goal_sum * bias
        # No smaller than their rounding, lest weights so large that they cancel look perfect.
        rounding = 1e-13 * (squares.abs() + product.abs())
        return torch.maximum(squares - 2 * product + self.goal_squares, rounding)

    @property
    def power(self) -> Tensor:
        """`Σ y²` of every output."""
        shift = self.goal_shift
        return self.goal_squares + 2 * shift * self.goal_sum + self.count * shift.square()

    @property
    def variance(self) -> Tensor:
        """`Σ (y - mean)²` of every output."""
        return (self.goal_squares - self.goal_sum.square() / self.count).clamp_min(0)

    def _covariance(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        mean, goal_mean = self.sum[kept] / self.count, self.goal_sum / self.count
        gram = self.gram[kept][:, kept] / self.count - _outer(mean, mean)
        return gram, self.cross[kept] / self.count - _outer(mean, goal_mean)

    def _solve(self, kept: Tensor, ridge: float) -> Tensor:
        key = kept.numpy().tobytes()
        if len(kept) > _MOST_FOR_EIGENVECTORS and ridge > 0:
            gram, cross = self._covariance(kept)
            gram.diagonal().add_(ridge * float(gram.diagonal().mean()) + 1e-300)
            factor, failed = torch.linalg.cholesky_ex(gram)
            if not failed:
                return torch.cholesky_solve(cross, factor)
        if key not in self._spectra:
            values, vectors = torch.linalg.eigh(self._covariance(kept)[0])
            self._spectra[key] = (values, vectors)
        values, vectors = self._spectra[key]
        scale = float(values.mean().clamp_min(torch.finfo(torch.float64).tiny))
        # Below float64's own resolution an eigenvalue is rounding, and would be blown up.
        steps = (values + ridge * scale).clamp_min(scale * 1e-13)
        return vectors @ ((vectors.T @ self._covariance(kept)[1]) / steps[:, None])


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu").double()


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return torch.outer(a, b)
