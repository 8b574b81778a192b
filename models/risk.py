"""From a model's log-odds to the two probabilities a decision needs: `pd` prices, `pd_hi` sizes.

The model is calibrated to the base rate of its training rows; the policy's central tendency is where its PDs belong.
The shift between the two odds moves every log-odds alike, so order, signs and certificate are untouched.

    pd    = sigmoid(log-odds + shift),   shift = logit(central tendency) - logit(base rate)
    pd_hi = max( pd, grade bound, bag quantile )

The grade bound is the 90 % Jeffreys upper limit on the out-of-fold defaults of the firm's grade; grades with fewer than
20 obligors are merged into the next worse one, and the bound never falls from better to worse. The bag quantile is the
90 % quantile over bootstrapped pipelines. Each part is non-decreasing in risk, so `pd_hi` is.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.errors import ArtefactError
from models.artefact import Model
from models.metrics import jeffreys_upper
from scoring.decide import Estimate, Improvement, Risk
from scoring.features import taken_at_their_word
from scoring.policy import BP, Grades, Policy
from scoring.reasons import GROUPS, improved
from scoring.score import PPB, band_edges_ppb

CONFIDENCE = 0.9
LEAST_OBLIGORS = 20

Floats = NDArray[np.float64]


def logit(p: float) -> float:
    """ln(p / (1 - p))."""
    return math.log(p / (1.0 - p))


def shift(base_rate: float, policy: Policy) -> float:
    """What is added to log-odds at the training base rate to bring them to the policy's central tendency."""
    return logit(policy.central_tendency.value / BP) - logit(base_rate)


def probability(log_odds: Floats) -> pl.Series:
    """The logistic function of each log-odds, rounded to whole parts per billion, the same bits in any batch.

    Raises:
        ArtefactError: one is not finite; minus infinity would be the best of all grades.
    """
    if not np.isfinite(log_odds).all():
        raise ArtefactError("the model gave something that is no probability")
    z = pl.Series("pd", log_odds)
    parts = (1.0 / (1.0 + (-z).exp()) * PPB).round().clip(1, PPB - 1)
    # numpy divides each value; polars multiplies long columns by a rounded reciprocal, with other last bits.
    return pl.Series("pd", parts.to_numpy() / PPB)


def grade_bounds(oof_log_odds: Floats, defaulted: NDArray[np.bool_], base_rate: float, policy: Policy) -> list[float]:
    """The upper PD of each grade of the policy, best grade first, at the policy's central tendency.

    Args:
        oof_log_odds: out-of-fold log-odds at the training base rate.
        defaulted: the outcomes of the same rows.
        base_rate: share of defaults in training.
        policy: its grades and central tendency.
    """
    moved = shift(base_rate, policy)
    number = _grades_of(oof_log_odds, base_rate, policy)
    obligors, defaults = _counts(number, policy), _counts(number, policy, defaulted)
    bounds = [0.0] * len(policy.grades.bands)
    for members in _merged(obligors.astype(np.int64).tolist()):
        upper = jeffreys_upper(int(defaults[members].sum()), int(obligors[members].sum()), CONFIDENCE)
        corrected = float(probability(np.array([logit(min(upper, 1 - 1e-12)) + moved]))[0])
        for grade in members:
            bounds[grade] = corrected
    return np.maximum.accumulate(bounds).tolist()


def calibration_by_grade(model: Model, policy: Policy) -> pl.DataFrame:
    """The training rows in each grade of a policy, best first, as they were judged out of fold.

    Returns:
        `grade`, `obligors`, `defaults`, `expected` (the defaults that their PDs at the training base rate add up to)
        and `pd_hi` (the grade's upper bound at the policy's central tendency).
    """
    odds, defaulted = model.oof_log_odds, model.oof_defaulted
    number = _grades_of(odds, model.base_rate, policy)
    return pl.DataFrame(
        {
            "grade": [band.grade for band in policy.grades.bands],
            "obligors": _counts(number, policy).astype(np.int64),
            "defaults": _counts(number, policy, defaulted).astype(np.int64),
            "expected": _counts(number, policy, probability(odds).to_numpy()),
            "pd_hi": grade_bounds(odds, defaulted, model.base_rate, policy),
        }
    )


def _grades_of(oof_log_odds: Floats, base_rate: float, policy: Policy) -> NDArray[np.int64]:
    return _grade_numbers(probability(oof_log_odds + shift(base_rate, policy)), policy.grades)


def _counts(number: NDArray[np.int64], policy: Policy, weights: NDArray[Any] | None = None) -> Floats:
    """Rows in each grade, or the sum of their weights."""
    summed = np.ones(number.size) if weights is None else weights.astype(np.float64)
    return np.bincount(number, weights=summed, minlength=len(policy.grades.bands)).astype(np.float64)


def _merged(obligors: Sequence[int]) -> list[list[int]]:
    """Runs of neighbouring grades with at least LEAST_OBLIGORS each; what is left at the worst end joins the last."""
    runs: list[list[int]] = []
    open_run: list[int] = []
    for grade in range(len(obligors)):
        open_run.append(grade)
        if sum(obligors[member] for member in open_run) >= LEAST_OBLIGORS:
            runs.append(open_run)
            open_run = []
    if open_run and runs:
        runs[-1].extend(open_run)
    elif open_run:
        runs.append(open_run)
    return runs


def _grade_numbers(pd: pl.Series, grades: Grades) -> NDArray[np.int64]:
    """The place of each PD's grade, 0 the best; the same edges as `scoring.score.grade`."""
    ppb = (pd * PPB).round().cast(pl.Int64).to_numpy()
    return np.searchsorted(np.array(band_edges_ppb(grades)), ppb, side="right").astype(np.int64)


class Estimator:
    """A model under a policy: grade bounds computed once, then estimates of any frames."""

    def __init__(self, model: Model, policy: Policy) -> None:
        self._model = model
        self._policy = policy
        self._shift = shift(model.base_rate, policy)
        bounds = grade_bounds(model.oof_log_odds, model.oof_defaulted, model.base_rate, policy)
        self._bounds = np.array(bounds)
        self.grade_bounds = bounds

    def estimate(self, frame: pl.DataFrame) -> Estimate:
        """`pd` and `pd_hi` of each row; a row's answer does not depend on its neighbours."""
        if frame.height == 0:
            return Estimate(pl.Series("pd", [], pl.Float64), pl.Series("pd_hi", [], pl.Float64))
        pd = probability(self._model.log_odds(frame) + self._shift)
        members = self._model.bag_log_odds(frame)
        place = math.ceil(CONFIDENCE * members.shape[1]) - 1
        bagged = probability(np.sort(members, axis=1)[:, place] + self._shift)
        bound = pl.Series(self._bounds[_grade_numbers(pd, self._policy.grades)])
        high = (
            pl.DataFrame({"pd": pd, "bound": bound, "bagged": bagged}).select(pl.max_horizontal(pl.all())).to_series()
        )
        return Estimate(pd, high.alias("pd_hi"))

    def risk(self, frame: pl.DataFrame) -> Risk:
        """All that `scoring.decide` asks of a model; rows that an improvement or a clean reading leaves are kept."""
        readings = [taken_at_their_word(frame)]
        readings += [improved(frame, group, self._model.references, self._policy) for group in GROUPS]
        now, clean, *better = self._estimates(frame, readings)
        groups = zip(GROUPS, readings[1:], better, strict=True)
        return Risk(now, clean, {group.name: Improvement(after, found) for group, after, found in groups})

    def _estimates(self, frame: pl.DataFrame, readings: Sequence[pl.DataFrame]) -> list[Estimate]:
        """The estimate of a frame and of other readings of it, in one pass over the rows that differ from the frame."""
        names = [one.name for one in self._model.inputs]
        before = frame.select(names)
        after = pl.concat([reading.select(names) for reading in readings], rechunk=True)
        known = pl.concat([before] * len(readings), rechunk=True).select(pl.all().name.prefix("before "))
        differs = (pl.col(name).ne_missing(pl.col(f"before {name}")) for name in names)
        rows = after.hstack(known).select(pl.any_horizontal(differs)).to_series().arg_true()
        found = self.estimate(pl.concat([before, after[rows]]))
        # Where the estimate of each row stands: among the frame's own, or behind them where the reading differs.
        places = np.tile(np.arange(frame.height), (1 + len(readings), 1))
        places[1:].reshape(-1)[rows.to_numpy()] = frame.height + np.arange(rows.len())
        return [Estimate(found.pd.gather(row), found.pd_hi.gather(row)) for row in places]
