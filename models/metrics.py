"""How good a model of default is: discrimination, calibration, drift, and how sure one can be of it.

Every function that judges a model takes `defaulted` (one boolean a row) and `log_odds` (one float a row, larger =
riskier, ln(pd / (1 - pd))). Rank metrics read the raw log-odds, never a rounded PD, so ties are those of the model
itself. A metric that needs both classes is NaN when one is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, expit, ndtri

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Metric = Callable[[Flags, Floats], float]


@dataclass(frozen=True)
class Interval:
    """A figure with its two-sided confidence interval."""

    value: float
    low: float
    high: float


def _tied(defaulted: Flags, log_odds: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of bad and of good rows at each distinct log-odds, in rising order.

    Raises:
        ValueError: a log-odds is NaN, or the lengths differ.
    """
    if len(defaulted) != len(log_odds) or bool(np.isnan(log_odds).any()):
        raise ValueError("every row needs a log-odds that is a number")
    distinct, place = np.unique(log_odds, return_inverse=True)
    bad = np.bincount(place[defaulted], minlength=len(distinct)).astype(np.int64)
    good = np.bincount(place[~defaulted], minlength=len(distinct)).astype(np.int64)
    return bad, good


def auc(defaulted: Flags, log_odds: Floats) -> float:
    """Share of (bad, good) pairs in which the bad row has the larger log-odds; a tie counts one half.

    Exact: pairs are counted in integers and divided once.
    """
    bad, good = _tied(defaulted, log_odds)
    pairs = int(bad.sum()) * int(good.sum())
    if pairs == 0:
        return float("nan")
    twice_won = int(np.sum(bad * (2 * (np.cumsum(good) - good) + good)))
    return twice_won / (2 * pairs)


def gini(defaulted: Flags, log_odds: Floats) -> float:
    """2 · AUC - 1, also called accuracy ratio."""
    return 2 * auc(defaulted, log_odds) - 1


def ks(defaulted: Flags, log_odds: Floats) -> float:
    """Kolmogorov-Smirnov: the largest gap between the distributions of bad and good rows, in [0, 1]."""
    bad, good = _tied(defaulted, log_odds)
    if bad.sum() == 0 or good.sum() == 0:
        return float("nan")
    return float(np.max(np.abs(np.cumsum(bad) / bad.sum() - np.cumsum(good) / good.sum())))


def pr_auc(defaulted: Flags, log_odds: Floats) -> float:
    """Average precision: the sum over falling thresholds of precision times the recall gained; no interpolation."""
    bad, good = (counts[::-1] for counts in _tied(defaulted, log_odds))
    if bad.sum() == 0 or good.sum() == 0:
        return float("nan")
    found = np.cumsum(bad)
    return float(np.sum(found / (found + np.cumsum(good)) * bad / bad.sum()))


def brier(defaulted: Flags, log_odds: Floats) -> float:
    """Mean squared distance of the PD from the outcome (0 or 1)."""
    return float(np.mean((expit(log_odds) - defaulted) ** 2))


def log_loss(defaulted: Flags, log_odds: Floats) -> float:
    """Mean of -ln(probability given to what happened), in nats; nothing is clipped, and finite log-odds stay finite."""
    return float(np.mean(np.logaddexp(0.0, np.where(defaulted, -log_odds, log_odds))))


def _equal_parts(values: Floats, parts: int) -> NDArray[np.int64]:
    """The part (0 … parts - 1) of each row by mid-rank: parts of about equal size; equal values share a part."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return np.minimum(np.floor(middle / len(values) * parts), parts - 1).astype(np.int64)[place]


def ece(defaulted: Flags, log_odds: Floats, parts: int = 10) -> float:
    """Expected calibration error: mean gap between mean PD and default rate over parts of equal size, weighted by size.

    Rows with the same log-odds are never parted, so the order of rows does not matter.
    """
    part = _equal_parts(log_odds, parts)
    gap = np.bincount(part, weights=expit(log_odds) - defaulted, minlength=parts)
    return float(np.sum(np.abs(gap)) / len(defaulted))


def psi(reference: Floats, current: Floats, parts: int = 10) -> float:
    """Population stability index of one column: Σ (c - r) · ln(c / r) over the reference's tenths; NaN is its own part.

    A share counts half a row more than was seen, so that an empty part is finite. Common reading: under 0.1 stable,
    over 0.25 shifted.
    """
    edges = (
        np.unique(np.quantile(reference[~np.isnan(reference)], np.linspace(0, 1, parts + 1)[1:-1]))
        if (not np.isnan(reference).all())
        else np.empty(0)
    )
    shares: list[Floats] = []
    for values in (reference, current):
        part = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="left"))
        counts = np.bincount(part, minlength=len(edges) + 2) + 0.5
        shares.append(counts / counts.sum())
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def psi_by_chance(reference: int, current: int, parts: int = 10) -> float:
    """The mean PSI of two samples of these sizes from one distribution: (parts - 1) · (1/reference + 1/current).

    Source: Yurdakul, "Statistical properties of population stability index" (2018): PSI over that factor is χ².
    """
    return (parts - 1) * (1 / reference + 1 / current)


def jeffreys_upper(defaults: int, obligors: int, confidence: float = 0.9) -> float:
    """One-sided upper limit of a default rate: the `confidence` quantile of Beta(defaults + 1/2, goods + 1/2).

    1 when all defaulted or none was observed. Rises with defaults and with confidence, falls with obligors.

    Source: Jeffreys prior for a binomial share; ECB instructions for validation reporting (2019), PD calibration test.
    """
    if not 0 <= defaults <= obligors or not 0 < confidence < 1:
        raise ValueError("0 <= defaults <= obligors and 0 < confidence < 1")
    if defaults == obligors:
        return 1.0
    return float(betaincinv(defaults + 0.5, obligors - defaults + 0.5, confidence))


def auc_interval(defaulted: Flags, log_odds: Floats, confidence: float = 0.95) -> Interval:
    """AUC with DeLong's interval, cut to [0, 1].

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988); placements by counting, ties one half.
    """
    value = auc(defaulted, log_odds)
    bad, good = np.sort(log_odds[defaulted]), np.sort(log_odds[~defaulted])
    if min(len(bad), len(good)) < 2:
        return Interval(value, 0.0, 1.0)
    of_bad = (np.searchsorted(good, bad, "left") + np.searchsorted(good, bad, "right")) / (2 * len(good))
    of_good = (np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")) / (2 * len(bad))
    variance = np.var(of_bad, ddof=1) / len(bad) + np.var(of_good, ddof=1) / len(good)
    half = float(ndtri(0.5 + confidence / 2) * np.sqrt(variance))
    return Interval(value, max(0.0, value - half), min(1.0, value + half))


def bootstrap_interval(
    metric: Metric, defaulted: Flags, log_odds: Floats, *, seed: int, draws: int = 500, confidence: float = 0.95
) -> Interval:
    """Any metric with its percentile interval over seeded draws; each class is drawn on its own, so its share stays."""
    stream = np.random.default_rng(seed)
    sides = [np.flatnonzero(defaulted), np.flatnonzero(~defaulted)]
    values = np.empty(draws)
    for number in range(draws):
        rows = np.concatenate([side[stream.integers(0, len(side), len(side))] for side in sides if len(side)])
        values[number] = metric(defaulted[rows], log_odds[rows])
    low, high = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(metric(defaulted, log_odds), float(low), float(high))
