"""Boosted trees that keep the promised directions: LightGBM with `basic` constraints, run so that it repeats itself.

Only `basic` is used: `intermediate` and `advanced` let a missing value in one feature break the order of another
(limit_science §6), and the certificate would refuse them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from models.encoding import Floats

# Fewer values than this are boosted faster by one thread than by two that wait for each other; the trees are the same.
VALUES_FOR_TWO_THREADS = 1_000_000


@dataclass(frozen=True, slots=True)
class Shape:
    """Settings of a booster that change what it learns."""

    leaves: int
    depth: int
    rate: float
    fewest_rows: int
    ridge: float
    columns: float
    rows: float
    most_rounds: int
    smooth: float = 0.0
    extra: bool = False


@dataclass(frozen=True)
class Trees:
    """One booster, kept as its text; predictions come from the text as it is stored, not from the trainer's memory."""

    text: str
    booster: lgb.Booster = field(compare=False, repr=False)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Load a booster from LightGBM's own text form."""
        return cls(text, lgb.Booster(model_str=text))

    def log_odds(self, encoded: Floats) -> Floats:
        """Raw log-odds of each row. One thread: LightGBM then walks row by row, the same way for one row and many."""
        if encoded.shape[0] == 0:
            return np.zeros(0)
        return np.asarray(self.booster.predict(encoded, raw_score=True, num_threads=1), dtype=np.float64)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as text."""
        return (Trees.from_text, (self.text,))


@dataclass(frozen=True, slots=True)
class Curve:
    """A booster in training, and its log loss on rows it did not see after each round."""

    booster: lgb.Booster
    losses: Floats


def threads_for(encoded: Floats) -> int:
    """How many threads train on this table."""
    return 2 if encoded.size >= VALUES_FOR_TWO_THREADS else 1


def _parameters(shape: Shape, directions: Sequence[int], seed: int, threads: int) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "objective": "binary",
        "metric": "None",
        "num_leaves": shape.leaves,
        "max_depth": shape.depth,
        "learning_rate": shape.rate,
        "min_data_in_leaf": shape.fewest_rows,
        "min_sum_hessian_in_leaf": 1e-3,
        "lambda_l2": shape.ridge,
        "path_smooth": shape.smooth,
        "extra_trees": shape.extra,
        "feature_fraction": shape.columns,
        "bagging_fraction": shape.rows,
        "bagging_freq": 1 if shape.rows < 1.0 else 0,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": threads,
        "verbosity": -1,
    }
    if any(directions):
        parameters |= {"monotone_constraints": list(directions), "monotone_constraints_method": "basic"}
    return parameters


def fit_trees(
    encoded: Floats, defaulted: NDArray[np.bool_], shape: Shape, directions: Sequence[int], *, rounds: int, seed: int
) -> Trees:
    """Train a booster for a fixed number of rounds."""
    data = lgb.Dataset(encoded, label=defaulted.astype(np.float64), params={"verbosity": -1})
    booster = lgb.train(_parameters(shape, directions, seed, threads_for(encoded)), data, num_boost_round=rounds)
    # Stored text and memory may differ in nothing, so the text is what is kept and what predicts.
    return Trees.from_text(booster.model_to_string(num_iteration=-1))


def fit_curve(
    encoded: Floats,
    defaulted: NDArray[np.bool_],
    unseen: tuple[Floats, NDArray[np.bool_]],
    shape: Shape,
    directions: Sequence[int],
    seed: int,
) -> Curve:
    """Train until the log loss on unseen rows has not fallen for a while, and keep the whole curve."""
    params = {"verbosity": -1}
    data = lgb.Dataset(encoded, label=defaulted.astype(np.float64), params=params)
    watched = lgb.Dataset(unseen[0], label=unseen[1].astype(np.float64), reference=data, params=params)
    record: dict[str, Any] = {}
    parameters = {**_parameters(shape, directions, seed, threads_for(encoded)), "metric": "binary_logloss"}
    patience = max(20, round(2.0 / shape.rate))
    calls = [lgb.early_stopping(patience, verbose=False), lgb.record_evaluation(record)]
    booster = lgb.train(
        parameters,
        data,
        num_boost_round=shape.most_rounds,
        valid_sets=[watched],
        callbacks=calls,
        keep_training_booster=True,
    )
    return Curve(booster, np.array(record["valid_0"]["binary_logloss"]))


def best_rounds(curves: Sequence[Curve], sizes: Sequence[int]) -> int:
    """The round with the least log loss over all folds, weighted by their rows; a curve that stopped keeps its last."""
    longest = max(curve.losses.size for curve in curves)
    total = np.zeros(longest)
    for curve, size in zip(curves, sizes, strict=True):
        total += size * np.append(curve.losses, np.full(longest - curve.losses.size, curve.losses[-1]))
    return int(np.argmin(total)) + 1


def predicted(curve: Curve, encoded: Floats, rounds: int) -> Floats:
    """Raw log-odds of rows by the first `rounds` rounds of a booster in training."""
    used = min(rounds, curve.losses.size)
    values = curve.booster.predict(encoded, raw_score=True, num_iteration=used, num_threads=threads_for(encoded))
    return np.asarray(values, dtype=np.float64)


def base_loss(defaulted: NDArray[np.bool_]) -> float:
    """Log loss of saying the base rate to everyone."""
    rate = float(defaulted.mean())
    return float(-(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)))


def probability(log_odds: Floats) -> Floats:
    """PD of training-time log-odds; for losses only, never for an answer that must repeat to the bit."""
    return np.asarray(expit(log_odds), dtype=np.float64)


def shape_from_json(plain: Mapping[str, Any]) -> Shape:
    """The settings written beside a pipeline."""
    return Shape(**plain)
