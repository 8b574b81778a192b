"""The additive part's view of encoded features: ramps between knots, flags for missing, flags for levels.

A ramp runs from 0 below its lower knot to 1 above its upper one, so a feature is a broken line whose pieces are the
coefficients; with none below zero the line never falls. One ramp over the whole range is the plain linear term.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from models.encoding import Feature

Floats = NDArray[np.float64]

# A level rarer than this is left to the booster; a text column with more levels gives its evidence instead of flags.
FEWEST_ROWS_OF_LEVEL = 5
MOST_LEVELS = 40


@dataclass(frozen=True, slots=True)
class Term:
    """One column of the additive part.

    Args:
        feature: index of the encoded feature it reads.
        kind: "ramp" between `low` and `high`; "missing" (1 where missing); "level" (1 where the index equals `low`).
        weight: how strongly the ridge pulls on its coefficient.
        signed: whether its coefficient may not be negative.
    """

    feature: int
    kind: Literal["ramp", "missing", "level"]
    low: float
    high: float
    weight: float
    signed: bool

    def values(self, encoded: Floats, feature: Feature) -> Floats:
        """The term for each row, in [0, 1]; a missing value stands above every other where the feature is directed."""
        column = encoded[:, self.feature]
        if self.kind == "level":
            return (column == self.low).astype(np.float64)
        absent = (column > feature.high) if feature.direction else np.isnan(column)
        if self.kind == "missing":
            return absent.astype(np.float64)
        ramp = np.clip((column - self.low) / (self.high - self.low), 0.0, 1.0)
        return ramp if feature.direction else np.where(absent, 0.0, ramp)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The term that `to_json` wrote."""
        return cls(**plain)


def knots(values: Floats, pieces: int) -> list[float]:
    """Rising knots at equal shares of the distinct order, from lowest to highest present value."""
    cuts = np.quantile(values, np.linspace(0.0, 1.0, pieces + 1))
    rising = [float(cuts[0])]
    for cut in cuts[1:].tolist():
        # Knots that almost touch would make a step that no row of the sample can place.
        if cut - rising[-1] > 1e-9 * max(1.0, abs(cut)):
            rising.append(cut)
    if rising[-1] < cuts[-1] and len(rising) > 1:
        rising[-1] = float(cuts[-1])
    return rising


def _ramps(index: int, feature: Feature, present: Floats, pieces: int) -> list[Term]:
    ends = knots(present, pieces) if present.size else []
    signed = bool(feature.direction)
    if len(ends) == 2 or pieces == 1:
        # A single ramp is weighted by its variance: a standardised linear term.
        if len(ends) < 2:
            return []
        spread = float(np.var(np.clip((present - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0)))
        return [Term(index, "ramp", ends[0], ends[1], max(spread, 1e-12), signed)]
    return [Term(index, "ramp", low, high, 1.0, signed) for low, high in itertools.pairwise(ends)]


def terms_of(features: Sequence[Feature], encoded: Floats, pieces: int) -> tuple[Term, ...]:
    """The terms of every feature, from training rows (labels play no part)."""
    found: list[Term] = []
    by_evidence = {f.name for f in features if f.kind == "level" and f.high + 1 > MOST_LEVELS}
    for index, feature in enumerate(features):
        column = encoded[:, index]
        if feature.kind == "level":
            if feature.name in by_evidence:
                continue
            counts = np.bincount(column.astype(np.int64))
            frequent = np.flatnonzero(counts >= FEWEST_ROWS_OF_LEVEL)
            found.extend(Term(index, "level", float(level), float(level), 1.0, signed=False) for level in frequent)
            continue
        if feature.kind != "number" and feature.name not in by_evidence:
            continue
        absent = (column > feature.high) if feature.direction else np.isnan(column)
        found.extend(_ramps(index, feature, column[~absent], pieces))
        if absent.any() and not absent.all():
            found.append(Term(index, "missing", 0.0, 1.0, 1.0, bool(feature.direction)))
    return tuple(found)


def design(terms: Sequence[Term], features: Sequence[Feature], encoded: Floats) -> Floats:
    """All terms as a matrix, one column a term."""
    matrix = np.empty((encoded.shape[0], len(terms)), dtype=np.float64, order="F")
    for index, term in enumerate(terms):
        matrix[:, index] = term.values(encoded, features[term.feature])
    return matrix
