"""What a model is measured against: plain, untuned rivals fitted on the same rows.

They are never served and promise nothing; a model that cannot beat them has not earned its complexity.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import lightgbm as lgb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.errors import UsageError
from models.encoding import Input, oriented
from models.logistic import Ridge, fit_logistic

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Scorer = Callable[[pl.DataFrame], Floats]
Kind = Literal["one_variable", "ridge", "lightgbm", "unsigned"]


@dataclass(frozen=True)
class Comparison:
    """A rival and what it sees.

    Args:
        kind: `one_variable`, logistic on the one input; `ridge`, logistic on all of them, penalty 1 on standardised
            values; `lightgbm`, as it comes; `unsigned`, the model's own form and inputs without sign constraints.
        words, words_zh: what the sentence calls it, such as "log of 36-month sales alone".
        inputs: columns and scales; directions are ignored. Empty for `unsigned`.
        table: rows as in the model's table, other columns; None if the inputs are in the model's own table.
    """

    kind: Kind
    words: str
    words_zh: str
    inputs: tuple[Input, ...] = ()
    table: pl.DataFrame | None = None


def fit_rival(comparison: Comparison, table: pl.DataFrame, defaulted: Flags, *, seed: int) -> Scorer:
    """Fit a plain rival; the answer gives log-odds for a table with the same columns.

    Raises:
        UsageError: a one-variable rule without exactly one input, or a rival without any.
    """
    inputs = comparison.inputs
    if not inputs or (comparison.kind == "one_variable" and len(inputs) != 1):
        raise UsageError(f"{comparison.words}: {len(inputs)} inputs do not make a {comparison.kind} comparison.")
    matrix = _matrix(table, inputs)
    if comparison.kind == "lightgbm":
        return _lightgbm(matrix, defaulted, inputs, seed)
    return _logistic(matrix, defaulted, inputs)


def _matrix(table: pl.DataFrame, inputs: Sequence[Input]) -> Floats:
    return np.column_stack([oriented(table[one.name], 0, one.scale) for one in inputs])


def _logistic(matrix: Floats, defaulted: Flags, inputs: Sequence[Input]) -> Scorer:
    """Missing values become the median, columns are standardised, Σ log loss + ½ Σ β² is minimised."""
    observed = ~np.isnan(matrix)
    middle = np.array(
        [np.median(column[seen]) if seen.any() else 0.0 for column, seen in zip(matrix.T, observed.T, strict=True)]
    )
    filled = np.where(observed, matrix, middle)
    centre, width = filled.mean(axis=0), filled.std(axis=0)
    width[width == 0] = 1.0
    ridge = Ridge(np.ones(len(inputs)), np.zeros(len(inputs), dtype=np.bool_))
    beta = fit_logistic((filled - centre) / width, defaulted.astype(np.float64), ridge)

    def score(table: pl.DataFrame) -> Floats:
        values = _matrix(table, inputs)
        return beta[0] + ((np.where(np.isnan(values), middle, values) - centre) / width) @ beta[1:]

    return score


def _lightgbm(matrix: Floats, defaulted: Flags, inputs: Sequence[Input], seed: int) -> Scorer:
    parameters = {
        "objective": "binary",
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": 1,
        "seed": seed,
        "verbosity": -1,
    }
    data = lgb.Dataset(matrix, label=defaulted.astype(np.float64), params={"verbosity": -1})
    booster = lgb.train(parameters, data, num_boost_round=100)

    def score(table: pl.DataFrame) -> Floats:
        values = booster.predict(_matrix(table, inputs), raw_score=True, num_threads=1)
        return np.asarray(values, dtype=np.float64)

    return score
