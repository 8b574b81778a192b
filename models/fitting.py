"""How a pipeline is trained: everything that is chosen, is chosen on rows that the part in question had not seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.boosting import Curve, Shape, Trees, best_rounds, fit_curve, fit_trees, predicted
from models.calibration import blend_weight, calibrate
from models.categories import CategoryColumn, cross_fitted
from models.encoding import Encoder, Floats, Input, fit_encoder
from models.logistic import Additive, additive, fit_logistic, ridge_of
from models.metrics import log_loss
from models.pipeline import Form, Pipeline, Tuning, check_label, tree_columns, tree_directions
from models.splits import stratified_folds
from models.terms import Term, design, terms_of

Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]

SMALL_ROWS = 1_000
FEW_DEFAULTS = 100
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training tries."""

    form: Form
    constrained: bool
    seed: int
    repeats: int
    pieces: tuple[int, ...]
    strengths: tuple[float, ...]
    shapes: tuple[Shape, ...]
    boosters: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Encoded training rows; text columns are seen through the eyes of other folds."""

    encoder: Encoder
    encoded: Floats
    codes: dict[int, Indices]
    defaulted: Flags

    def seen_from(self, folds: Indices, held_out: int | None) -> Floats:
        """Encoded rows in which nobody's own label, nor a label of the held-out fold, speaks."""
        if not self.codes:
            return self.encoded
        matrix = self.encoded.copy(order="F")
        for feature, codes in self.codes.items():
            matrix[:, feature] = cross_fitted(codes, self.defaulted, folds, held_out)
        return matrix


SMALL_SHAPES = (Shape(leaves=4, depth=2, rate=0.05, fewest_rows=8, ridge=5.0, columns=0.5, rows=0.8, most_rounds=300),)
LARGE_SHAPES = (
    Shape(leaves=15, depth=5, rate=0.05, fewest_rows=20, ridge=5.0, columns=0.5, rows=0.8, most_rounds=2_000),
)


def plan_for(
    rows: int, defaults: int, form: Literal["small", "large", "auto"], seed: int, *, constrained: bool
) -> Plan:
    """The plan for a sample of this size."""
    few = rows < SMALL_ROWS or min(defaults, rows - defaults) < FEW_DEFAULTS
    chosen: Form = ("small" if few else "large") if form == "auto" else form
    if chosen == "small":
        return Plan("small", constrained, seed, 2, (1,), (0.3, 1.0, 3.0, 10.0, 30.0, 100.0), SMALL_SHAPES, 3)
    return Plan("large", constrained, seed, 1, (8,), (0.1, 0.3, 1.0, 3.0, 10.0), LARGE_SHAPES, 3)


def fit_pipeline(
    table: pl.DataFrame,
    defaulted: Flags,
    inputs: Sequence[Input],
    *,
    seed: int,
    form: Literal["small", "large", "auto"] = "auto",
    constrained: bool = True,
    encoder: Encoder | None = None,
) -> Pipeline:
    """Train on numeric inputs; ridge strength, tree rounds, blend and calibration are chosen inside.

    Args:
        table: the inputs' columns; others are not read.
        defaulted: one label a row.
        inputs: what to use and what is promised of it.
        seed: the same seed and rows give the same model.
        form: "small" for few rows or defaults; "auto" decides (under 1,000 rows or 100 of the rarer outcome).
        constrained: False keeps the same features and penalty but lets every sign be free, for comparison only.
        encoder: use this encoding instead of learning one from these rows.

    Raises:
        ContractError: a column is missing or not a number, or there are fewer than two rows of either outcome.
    """
    check_label(defaulted, table.height)
    learned = fit_encoder(table, inputs) if encoder is None else encoder
    plan = plan_for(table.height, int(defaulted.sum()), form, seed, constrained=constrained)
    return train(sample_of(learned, table, defaulted), tuple(inputs), plan)


def refitted(pipeline: Pipeline, table: pl.DataFrame, defaulted: Flags, *, seed: int) -> Pipeline:
    """The same model on other rows: encoding, terms, strength, rounds, blend and calibration stay as chosen.

    For bootstrap members: a draw holds copies of the same row, and cross-validation inside it would see them on both
    sides and choose too little shrinkage.
    """
    check_label(defaulted, table.height)
    return refitted_encoded(pipeline, pipeline.encoder.encoded(table), defaulted, seed=seed)


def refitted_encoded(pipeline: Pipeline, encoded: Floats, defaulted: Flags, *, seed: int) -> Pipeline:
    """`refitted` from rows that are encoded already."""
    sample = Sample(pipeline.encoder, encoded, {}, defaulted)
    part = _fit_additive(sample, encoded, pipeline.additive.terms, pipeline.tuning)
    trees = _fit_boosters(sample, encoded, pipeline.tuning, seed) if pipeline.trees else ()
    return replace(pipeline, additive=part, trees=trees, base_rate=float(defaulted.mean()))


def sample_of(encoder: Encoder, table: pl.DataFrame, defaulted: Flags) -> Sample:
    """Encode training rows and remember the levels of text columns."""
    coded = {column.name: column.codes(table) for column in encoder.columns if isinstance(column, CategoryColumn)}
    features = enumerate(encoder.features)
    codes = {index: coded[feature.name] for index, feature in features if feature.kind == "evidence"}
    return Sample(encoder, encoder.encoded(table), codes, defaulted)


def train(sample: Sample, inputs: tuple[Input, ...], plan: Plan) -> Pipeline:
    """Choose by cross-validation, then fit on all rows."""
    repeats = [stratified_folds(sample.defaulted, _folds(sample), plan.seed + r) for r in range(plan.repeats)]
    seen = [[sample.seen_from(folds, k) for k in range(int(folds.max()) + 1)] for folds in repeats]
    pieces, strength, linear = _choose_additive(sample, repeats, seen, plan)
    shape, rounds, boosted = _choose_boosters(sample, repeats, seen, plan)
    weight = blend_weight(linear, boosted, sample.defaulted)
    out_of_fold = weight * linear + (1 - weight) * boosted
    calibration = calibrate(out_of_fold, sample.defaulted)
    tuning = Tuning(plan.form, plan.constrained, pieces, strength, shape, rounds, plan.boosters)
    encoded = sample.seen_from(repeats[0], None)
    part = _fit_additive(sample, encoded, terms_of(sample.encoder.features, sample.encoded, pieces), tuning)
    return Pipeline(
        inputs,
        sample.encoder,
        part,
        _fit_boosters(sample, encoded, tuning, plan.seed) if weight < 1.0 else (),
        weight,
        calibration,
        float(sample.defaulted.mean()),
        log_loss(sample.defaulted, calibration.log_odds(out_of_fold)),
        tuning,
    )


def _folds(sample: Sample) -> int:
    defaults = int(sample.defaulted.sum())
    return max(2, min(FOLDS, defaults, sample.defaulted.size - defaults))


def _splits(repeats: list[Indices], seen: list[list[Floats]]) -> Iterator[tuple[Floats, Flags, int]]:
    """Each held-out part: rows as seen without it, which rows it holds, and its repeat."""
    for repeat, folds in enumerate(repeats):
        for fold, matrix in enumerate(seen[repeat]):
            yield matrix, folds == fold, repeat


def _choose_additive(
    sample: Sample, repeats: list[Indices], seen: list[list[Floats]], plan: Plan
) -> tuple[int, float, Floats]:
    """The pieces a ramp is cut into and the ridge strength with the least out-of-fold log loss, and those log-odds."""
    label = sample.defaulted.astype(np.float64)
    best: tuple[float, int, float, Floats] | None = None
    for pieces in plan.pieces:
        terms = terms_of(sample.encoder.features, sample.encoded, pieces)
        found = np.zeros((len(plan.strengths), len(repeats), label.size))
        for matrix, out, repeat in _splits(repeats, seen):
            table = design(terms, sample.encoder.features, matrix)
            kept, start = np.ascontiguousarray(table[~out]), None
            # From strong to weak, each fit beginning at the last.
            for index, strength in sorted(enumerate(plan.strengths), key=lambda one: -one[1]):
                ridge = ridge_of(terms, strength, constrained=plan.constrained)
                start = fit_logistic(kept, label[~out], ridge, start)
                found[index, repeat, out] = start[0] + table[out] @ start[1:]
        for strength, log_odds in zip(plan.strengths, found, strict=True):
            loss = float(np.mean([log_loss(sample.defaulted, one) for one in log_odds]))
            if best is None or loss < best[0]:
                best = (loss, pieces, strength, log_odds.mean(axis=0))
    if best is None:
        raise ValueError("a plan without pieces or strengths")
    return best[1], best[2], best[3]


def _choose_boosters(
    sample: Sample, repeats: list[Indices], seen: list[list[Floats]], plan: Plan
) -> tuple[Shape, int, Floats]:
    """The shape of trees and number of rounds with the least out-of-fold log loss, and those log-odds."""
    columns = tree_columns(sample.encoder.features)
    directions = tree_directions(sample.encoder.features) if plan.constrained else [0] * len(columns)
    best: tuple[float, Shape, int, Floats] | None = None
    for shape in plan.shapes:
        curves: list[Curve] = []
        parts = list(_splits(repeats, seen))
        for number, (matrix, out, _) in enumerate(parts):
            rows = matrix[:, columns]
            unseen = (rows[out], sample.defaulted[out])
            curves.append(fit_curve(rows[~out], sample.defaulted[~out], unseen, shape, directions, plan.seed + number))
        rounds = best_rounds(curves, [int(out.sum()) for _, out, _ in parts])
        log_odds = np.zeros((len(repeats), sample.defaulted.size))
        for curve, (matrix, out, repeat) in zip(curves, parts, strict=True):
            log_odds[repeat, out] = predicted(curve, matrix[out][:, columns], rounds)
        mean = log_odds.mean(axis=0)
        loss = log_loss(sample.defaulted, mean)
        if best is None or loss < best[0]:
            best = (loss, shape, rounds, mean)
    if best is None:
        raise ValueError("a plan without shapes of trees")
    return best[1], best[2], best[3]


def _fit_additive(sample: Sample, encoded: Floats, terms: Sequence[Term], tuning: Tuning) -> Additive:
    matrix = design(terms, sample.encoder.features, encoded)
    ridge = ridge_of(terms, tuning.strength, constrained=tuning.constrained)
    return additive(terms, fit_logistic(matrix, sample.defaulted.astype(np.float64), ridge))


def _fit_boosters(sample: Sample, encoded: Floats, tuning: Tuning, seed: int) -> tuple[Trees, ...]:
    columns = tree_columns(sample.encoder.features)
    directions = tree_directions(sample.encoder.features) if tuning.constrained else [0] * len(columns)
    rows = encoded[:, columns]
    return tuple(
        fit_trees(rows, sample.defaulted, tuning.shape, directions, rounds=tuning.rounds, seed=seed + index)
        for index in range(tuning.boosters)
    )
