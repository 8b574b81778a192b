"""Boosted trees that keep the promised directions: LightGBM with `basic` constraints, run so that it repeats itself.

Only `basic` is used: `intermediate` and `advanced` let a missing value in one feature break the order of another
(limit_science §6), and the certificate would refuse them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from models.calibration import calibrated_loss
from models.encoding import Floats

# Fewer values than this are boosted faster by one thread than by two that wait for each other; the trees are the same.
VALUES_FOR_TWO_THREADS = 1_000_000

# Rounds at which a booster in training is judged, and how many times in a row it may fail to improve.
CHECKPOINTS = (15, 25, 35, 50, 70, 100, 140, 200, 280, 400, 560, 800, 1_130, 1_600)
PATIENCE = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """Settings of a booster that change what it learns.

    Args:
        rate: learning rate.
        fewest_rows: a leaf holds at least so many.
        ridge: of leaf values.
        columns, rows: shares drawn for each tree.
        smooth: pull of a leaf towards its parent, in rows.
        extra: whether splits are tried at one random threshold a feature.
    """

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

    @property
    def sampled(self) -> bool:
        """Whether another seed grows other trees."""
        return self.extra or self.rows < 1.0 or self.columns < 1.0


@dataclass(frozen=True)
class Trees:
    """One booster, kept as its text; predictions come from the text as it is stored, not from the trainer's memory."""

    text: str = field(repr=False)
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
        # Smoothing is applied after the constraints and breaks them (LightGBM 4.7.0; the certificate found it).
        "path_smooth": 0.0 if any(directions) else shape.smooth,
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


@dataclass(frozen=True, slots=True)
class Part:
    """One step of a cross-validation: encoded rows as seen without the held-out ones, and which those are."""

    encoded: Floats
    held_out: NDArray[np.bool_]
    repeat: int


@dataclass(frozen=True, slots=True)
class Grown:
    """How long to grow trees of a shape, and what they then say of rows they did not see.

    Args:
        loss: out-of-fold log loss after calibration.
        log_odds: raw, one a row, mean over repeats.
    """

    shape: Shape
    rounds: int
    loss: float
    log_odds: Floats


def _started(part: Part, label: Floats, shape: Shape, directions: Sequence[int], seed: int) -> lgb.Booster:
    rows = part.encoded[~part.held_out]
    data = lgb.Dataset(rows, label=label[~part.held_out], params={"verbosity": -1})
    return lgb.Booster(_parameters(shape, directions, seed, threads_for(rows)), train_set=data)


def grow(
    parts: Sequence[Part], defaulted: NDArray[np.bool_], shape: Shape, directions: Sequence[int], seed: int
) -> Grown:
    """Grow all folds together and stop where the pooled, calibrated log loss no longer falls.

    The loss is judged after calibration: boosters go on to rank better long after their raw probabilities have become
    too sure of themselves, and the slope of the calibration takes that back.
    """
    label = defaulted.astype(np.float64)
    boosters = [_started(part, label, shape, directions, seed + index) for index, part in enumerate(parts)]
    score = np.zeros((1 + max(part.repeat for part in parts), defaulted.size))
    best, done = Grown(shape, 0, np.inf, score[0]), 0
    for stop in (stop for stop in CHECKPOINTS if stop <= shape.most_rounds):
        for part, booster in zip(parts, boosters, strict=True):
            for _ in range(done, stop):
                booster.update()
            unseen = part.encoded[part.held_out]
            threads = threads_for(unseen)
            # Raw scores of single rounds add up; the first holds the base rate.
            added = booster.predict(
                unseen, raw_score=True, start_iteration=done, num_iteration=stop - done, num_threads=threads
            )
            score[part.repeat, part.held_out] += np.asarray(added, dtype=np.float64)
        done = stop
        mean = score.mean(axis=0)
        loss = calibrated_loss(mean, defaulted)
        if loss < best.loss:
            best = Grown(shape, done, loss, mean)
        elif CHECKPOINTS.index(done) - CHECKPOINTS.index(best.rounds) >= PATIENCE:
            break
    return best
