"""Ridge logistic regression with signs: the additive part of a model.

minimise Σ ln(1 + exp(-y·z)) + λ/2 · Σ w·β²,   z = intercept + Σ β·term,   β ≥ 0 where the term is signed

by Newton steps on the coefficients that are not held at zero (Bertsekas 1982, projected Newton).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit
from threadpoolctl import ThreadpoolController

from models.encoding import Feature, Floats
from models.terms import Term

# Coefficients are kept to this many significant digits: what differs beyond is the order of a machine's sums.
DIGITS = 10


@dataclass(frozen=True, slots=True)
class Additive:
    """A fitted additive part: log-odds = intercept + Σ coefficient · term, added in the order of the terms."""

    terms: tuple[Term, ...]
    intercept: float
    coefficients: tuple[float, ...]

    def log_odds(self, encoded: Floats, features: Sequence[Feature]) -> Floats:
        """Log-odds of each row; column by column, so that a row alone gives the bits it gives in a batch."""
        total = np.full(encoded.shape[0], self.intercept)
        for term, coefficient in zip(self.terms, self.coefficients, strict=True):
            if coefficient != 0.0:
                total += coefficient * term.values(encoded, features[term.feature])
        return total

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        terms = [term.to_json() for term in self.terms]
        return {"terms": terms, "intercept": self.intercept, "coefficients": list(self.coefficients)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The part that `to_json` wrote."""
        terms = tuple(Term.from_json(term) for term in plain["terms"])
        return cls(terms, plain["intercept"], tuple(plain["coefficients"]))


@dataclass(frozen=True, slots=True)
class Ridge:
    """The penalty and signs of a fit, one entry a coefficient; the intercept is neither penalised nor signed."""

    penalty: Floats
    signed: NDArray[np.bool_]


_BLAS = ThreadpoolController()
"""The libraries under numpy and scipy, looked up once."""


def ridge_of(terms: Sequence[Term], strength: float, *, constrained: bool) -> Ridge:
    """Penalty λ·w of each term, and which coefficients may not be negative."""
    penalty = np.array([strength * term.weight for term in terms])
    signed = np.array([constrained and term.signed for term in terms], dtype=bool)
    return Ridge(penalty, signed)


def _objective(margin: Floats, label: Floats, coefficients: Floats, penalty: Floats) -> float:
    # Σ ln(1 + e^z) - y·z, without overflow.
    loss = np.logaddexp(0.0, margin) - label * margin
    return float(loss.sum() + 0.5 * (penalty * coefficients**2).sum())


def fit_logistic(matrix: Floats, label: Floats, ridge: Ridge, start: Floats | None = None, steps: int = 60) -> Floats:
    """Coefficients, the intercept first. One thread: the bits then do not depend on how many cores there are.

    Args:
        matrix: terms of the training rows, (rows, terms).
        label: 1.0 where defaulted, else 0.0.
        ridge: penalty and signs.
        start: coefficients of a fit nearby, to begin from.
        steps: Newton steps at most; a handful are taken.
    """
    with _BLAS.limit(limits=1, user_api="blas"):
        return _fitted(matrix, label, ridge, start, steps)


def _fitted(matrix: Floats, label: Floats, ridge: Ridge, start: Floats | None, steps: int) -> Floats:
    count = matrix.shape[1]
    penalty = np.append(0.0, ridge.penalty)
    signed = np.append(np.False_, ridge.signed)
    rate = float(label.mean())
    beta = np.append(np.log(rate / (1 - rate)), np.zeros(count)) if start is None else start.copy()
    margin = beta[0] + matrix @ beta[1:]
    value = _objective(margin, label, beta, penalty)
    for _ in range(steps):
        mean = expit(margin)
        residual = mean - label
        slope = np.append(residual.sum(), matrix.T @ residual) + penalty * beta
        free = ~(signed & (beta <= 0.0) & (slope >= 0.0))
        direction = _newton(matrix, mean * (1 - mean), slope, penalty, free)
        beta_next, margin_next, value_next = _search(matrix, label, beta, direction, value, ridge)
        gained = value - value_next
        beta, margin, value = beta_next, margin_next, value_next
        if gained <= 1e-10 * (1.0 + abs(value)):
            break
    return beta


def _newton(matrix: Floats, curvature: Floats, slope: Floats, penalty: Floats, free: NDArray[np.bool_]) -> Floats:
    """The Newton direction over the free coefficients; zero elsewhere."""
    terms = free[1:]
    used = matrix if terms.all() else matrix[:, terms]
    weighted = used * curvature[:, None]
    size = used.shape[1] + 1
    hessian = np.empty((size, size))
    hessian[0, 0] = curvature.sum()
    hessian[0, 1:] = hessian[1:, 0] = weighted.sum(axis=0)
    hessian[1:, 1:] = used.T @ weighted
    hessian[np.diag_indices(size)] += penalty[free] + 1e-9 * (1.0 + hessian[0, 0])
    direction = np.zeros(free.size)
    direction[free] = -cho_solve(cho_factor(hessian, lower=True), slope[free])
    return direction


def _search(
    matrix: Floats, label: Floats, beta: Floats, direction: Floats, value: float, ridge: Ridge
) -> tuple[Floats, Floats, float]:
    """The largest halving of the step, projected on the signs, that lowers the objective; else no step."""
    signed = np.append(np.False_, ridge.signed)
    penalty = np.append(0.0, ridge.penalty)
    step = 1.0
    for _ in range(30):
        tried = beta + step * direction
        tried[signed] = np.maximum(tried[signed], 0.0)
        margin = tried[0] + matrix @ tried[1:]
        reached = _objective(margin, label, tried, penalty)
        if reached < value:
            return tried, margin, reached
        step *= 0.5
    return beta, beta[0] + matrix @ beta[1:], value


def rounded(value: float) -> float:
    """A coefficient to DIGITS significant digits."""
    return float(f"{value:.{DIGITS}g}")


def additive(terms: Sequence[Term], beta: Floats) -> Additive:
    """The fitted part of these terms and coefficients."""
    return Additive(tuple(terms), rounded(float(beta[0])), tuple(rounded(float(one)) for one in beta[1:]))
