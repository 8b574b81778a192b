"""How a pipeline is trained: everything that is chosen, is chosen on rows that the part in question had not seen."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.boosting import Grown, Part, Shape, Trees, fit_trees, grow
from models.calibration import blend_weight, calibrate, calibrated_loss
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
# From here on three folds tell as much, in little more than half the time.
ROWS_FOR_FEWER_FOLDS, FEWER_FOLDS = 30_000, 3
MANY_ROWS = 150_000
# A Newton step takes the cube of this; a wider table gets straight lines.
MOST_TERMS = 600


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training tries."""

    form: Form
    constrained: bool
    seed: int
    folds: int
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


SMALL_SHAPE = Shape(leaves=4, depth=2, rate=0.05, fewest_rows=8, ridge=5.0, columns=0.5, rows=0.8, most_rounds=400)
LEAF_DEFAULTS = 5
"""With few defaults a leaf must be large enough to expect this many, or it is a list of names (scorecard practice)."""
# From cautious to greedy: few rows and many rows want different trees, and collinear ratios with gaps the greediest.
LARGE_SHAPES = (
    Shape(leaves=8, depth=3, rate=0.05, fewest_rows=20, ridge=10.0, columns=0.5, rows=0.8, most_rounds=1_600),
    Shape(
        leaves=31, depth=-1, rate=0.05, fewest_rows=5, ridge=1.0, columns=1.0, rows=1.0, most_rounds=1_600, extra=True
    ),
    Shape(
        leaves=31, depth=-1, rate=0.1, fewest_rows=20, ridge=0.0, columns=1.0, rows=1.0, most_rounds=560, smooth=10.0
    ),
)


def small_shape(rows: int, defaults: int) -> Shape:
    """Shallow trees for a small sample; under FEW_DEFAULTS of the rarer outcome, slower ones with larger leaves."""
    rarer = min(defaults, rows - defaults)
    if rarer >= FEW_DEFAULTS or rarer == 0:
        return SMALL_SHAPE
    leaf = min(math.ceil(LEAF_DEFAULTS * rows / rarer), rows // 5)
    return replace(SMALL_SHAPE, rate=0.03, fewest_rows=max(leaf, SMALL_SHAPE.fewest_rows), ridge=20.0)


# Enough rows to let every tree be large; most_rounds bounds the time.
MANY_SHAPES = (
    Shape(leaves=31, depth=-1, rate=0.1, fewest_rows=50, ridge=1.0, columns=1.0, rows=1.0, most_rounds=560),
    Shape(
        leaves=127, depth=-1, rate=0.05, fewest_rows=50, ridge=5.0, columns=1.0, rows=1.0, most_rounds=280, smooth=20.0
    ),
)


def plan_for(
    rows: int, defaults: int, form: Literal["small", "large", "auto"], seed: int, *, constrained: bool
) -> Plan:
    """The plan for a sample of this size."""
    few = rows < SMALL_ROWS or min(defaults, rows - defaults) < FEW_DEFAULTS
    chosen: Form = ("small" if few else "large") if form == "auto" else form
    if chosen == "small":
        return Plan(
            "small",
            constrained,
            seed,
            FOLDS,
            2,
            (1,),
            (0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
            (small_shape(rows, defaults),),
            3,
        )
    strengths = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    if rows < ROWS_FOR_FEWER_FOLDS:
        return Plan("large", constrained, seed, FOLDS, 1, (4,), strengths, LARGE_SHAPES, 2)
    shapes = LARGE_SHAPES if rows < MANY_ROWS else MANY_SHAPES
    return Plan("large", constrained, seed, FEWER_FOLDS, 1, (12,), strengths, shapes, 1)


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
    parts = _parts(sample, plan)
    pieces, strength, linear = _choose_additive(sample, parts, plan)
    grown, boosted = _choose_boosters(sample, parts, plan)
    weight = blend_weight(linear, boosted, sample.defaulted) if grown else 1.0
    out_of_fold = weight * linear + (1 - weight) * boosted
    calibration = calibrate(out_of_fold, sample.defaulted)
    shapes, rounds = tuple(one.shape for one in grown), tuple(one.rounds for one in grown)
    tuning = Tuning(plan.form, plan.constrained, pieces, strength, shapes, rounds, plan.boosters)
    folds = stratified_folds(sample.defaulted, _folds(sample, plan), plan.seed)
    encoded = sample.seen_from(folds, None)
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


def _folds(sample: Sample, plan: Plan) -> int:
    defaults = int(sample.defaulted.sum())
    return max(2, min(plan.folds, defaults, sample.defaulted.size - defaults))


def _parts(sample: Sample, plan: Plan) -> list[Part]:
    """Every held-out part of every repeat."""
    found: list[Part] = []
    for repeat in range(plan.repeats):
        folds = stratified_folds(sample.defaulted, _folds(sample, plan), plan.seed + repeat)
        found += [Part(sample.seen_from(folds, k), folds == k, repeat) for k in range(int(folds.max()) + 1)]
    return found


def _choose_additive(sample: Sample, parts: Sequence[Part], plan: Plan) -> tuple[int, float, Floats]:
    """The pieces a ramp is cut into and the ridge strength with the least out-of-fold log loss, and those log-odds."""
    label = sample.defaulted.astype(np.float64)
    best: tuple[float, int, float, Floats] | None = None
    most = max(1, MOST_TERMS // max(1, len(sample.encoder.features)))
    for pieces in sorted({min(wanted, most) for wanted in plan.pieces}):
        terms = terms_of(sample.encoder.features, sample.encoded, pieces)
        found = np.zeros((len(plan.strengths), plan.repeats, label.size))
        for part in parts:
            table, out = design(terms, sample.encoder.features, part.encoded), part.held_out
            kept, start = np.ascontiguousarray(table[~out]), None
            # From strong to weak, each fit beginning at the last.
            for index, strength in sorted(enumerate(plan.strengths), key=lambda one: -one[1]):
                ridge = ridge_of(terms, strength, constrained=plan.constrained)
                start = fit_logistic(kept, label[~out], ridge, start)
                found[index, part.repeat, out] = start[0] + table[out] @ start[1:]
        for strength, log_odds in zip(plan.strengths, found, strict=True):
            loss = float(np.mean([log_loss(sample.defaulted, one) for one in log_odds]))
            if best is None or loss < best[0]:
                best = (loss, pieces, strength, log_odds.mean(axis=0))
    if best is None:
        raise ValueError("a plan without pieces or strengths")
    return best[1], best[2], best[3]


def _choose_boosters(sample: Sample, parts: Sequence[Part], plan: Plan) -> tuple[tuple[Grown, ...], Floats]:
    """The shapes of trees with the least out-of-fold log loss, one or the mean of several, and their log-odds."""
    columns = tree_columns(sample.encoder.features)
    if not columns:
        return (), np.zeros(sample.defaulted.size)
    directions = tree_directions(sample.encoder.features) if plan.constrained else [0] * len(columns)
    seen = [Part(np.ascontiguousarray(part.encoded[:, columns]), part.held_out, part.repeat) for part in parts]
    grown = [grow(seen, sample.defaulted, shape, directions, plan.seed) for shape in plan.shapes]
    sets = [chosen for size in range(1, len(grown) + 1) for chosen in itertools.combinations(grown, size)]
    scores = [np.mean([one.log_odds for one in chosen], axis=0) for chosen in sets]
    best = int(np.argmin([calibrated_loss(score, sample.defaulted) for score in scores]))
    return sets[best], scores[best]


def _fit_additive(sample: Sample, encoded: Floats, terms: Sequence[Term], tuning: Tuning) -> Additive:
    matrix = design(terms, sample.encoder.features, encoded)
    ridge = ridge_of(terms, tuning.strength, constrained=tuning.constrained)
    return additive(terms, fit_logistic(matrix, sample.defaulted.astype(np.float64), ridge))


def _fit_boosters(sample: Sample, encoded: Floats, tuning: Tuning, seed: int) -> tuple[Trees, ...]:
    columns = tree_columns(sample.encoder.features)
    directions = tree_directions(sample.encoder.features) if tuning.constrained else [0] * len(columns)
    rows = encoded[:, columns]
    return tuple(
        fit_trees(rows, sample.defaulted, shape, directions, rounds=rounds, seed=seed + index)
        for shape, rounds in zip(tuning.shapes, tuning.rounds, strict=True)
        # Without sampling every seed grows the same trees.
        for index in range(tuning.boosters if shape.sampled else 1)
    )
