"""The proof that a model is monotone: what it must accept, refuse and find."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.certificate import Boxes, boxes_of, certify_booster, trees_of
from models.encoding import Input, NumberColumn
from models.fitting import fit_pipeline, refitted
from models.pipeline import Pipeline

Floats = NDArray[np.float64]
FEATURES = 6


def rows_with_gaps(seed: int, rows: int = 1_200, features: int = FEATURES, gaps: float = 0.15) -> tuple[Floats, Floats]:
    """Risk rises with every feature, two of them interact, and values are missing at random."""
    draw = np.random.default_rng(seed)
    table = draw.normal(size=(rows, features))
    slopes = np.abs(draw.normal(size=features)) * 0.35
    log_odds = table @ slopes + 0.8 * table[:, 0] * table[:, 1] - 1
    label = (draw.random(rows) < 1 / (1 + np.exp(-log_odds))).astype(np.float64)
    table[draw.random(table.shape) < gaps] = np.nan
    return table, label


def booster(
    table: Floats,
    label: Floats,
    *,
    method: str | None = "basic",
    rounds: int = 40,
    categories: Sequence[int] = (),
    **more: float,
) -> lgb.Booster:
    """A greedy booster, as someone in a hurry would train it."""
    settings: dict[str, object] = {
        "objective": "binary",
        "num_leaves": 31,
        "learning_rate": 0.1,
        "min_data_in_leaf": 3,
        "seed": 1,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    if method is not None:
        settings |= {"monotone_constraints": [1] * table.shape[1], "monotone_constraints_method": method}
    data = lgb.Dataset(table, label=label, categorical_feature=list(categories), params={"verbosity": -1})
    return lgb.train({**settings, **more}, data, num_boost_round=rounds)


def inside(low: float, high: float) -> float:
    """A point of (low, high], away from its ends; missing where there is none."""
    if not low < high:
        return np.nan
    if low > -np.inf and high < np.inf:
        return (low + high) / 2
    return high - 1.0 if high < np.inf else max(low + 1.0, 0.0)


def point_in(boxes: Boxes, leaf: int, other: int, feature: int, features: int) -> tuple[Floats, Floats]:
    """Two rows that differ in one feature only: the first falls into one leaf, the second into the other."""
    first, second = np.zeros(features), np.zeros(features)
    for at, used in enumerate(boxes.used.tolist()):
        sides = [(boxes.low[one, at], boxes.high[one, at]) for one in (leaf, other)]
        if used == feature:
            first[used], second[used] = (inside(low, high) for low, high in sides)
        else:
            shared = inside(max(sides[0][0], sides[1][0]), min(sides[0][1], sides[1][1]))
            first[used] = second[used] = shared
    return first, second


def test_basic_constraints_are_certified_even_with_missing_values() -> None:
    certificate = certify_booster(booster(*rows_with_gaps(3)), [1] * FEATURES)
    assert certificate.holds
    assert certificate.pairs > 1_000
    assert certificate.trees == 40


@pytest.mark.parametrize(("method", "seed"), [("intermediate", 3), ("advanced", 0), (None, 0)])
def test_other_methods_are_refused_and_each_violation_is_real(method: str | None, seed: int) -> None:
    model = booster(*rows_with_gaps(seed), method=method)
    certificate = certify_booster(model, [1] * FEATURES, names=[f"f{i}" for i in range(FEATURES)])
    assert not certificate.holds
    _, trees = trees_of(model.model_to_string())
    for violation in certificate.violations[:25]:
        boxes = boxes_of(trees[violation.tree])
        leaf, other = (int(np.flatnonzero(boxes.leaf == one)[0]) for one in violation.leaves)
        better, worse = point_in(boxes, leaf, other, int(violation.feature[1:]), FEATURES)
        of_tree = model.predict(
            np.vstack([better, worse]), raw_score=True, start_iteration=violation.tree, num_iteration=1, num_threads=1
        )
        fall = np.asarray(of_tree)[0] - np.asarray(of_tree)[1]
        assert fall > 0
        assert fall == pytest.approx(violation.size)


def test_path_smoothing_breaks_basic_constraints_and_is_found() -> None:
    assert not certify_booster(booster(*rows_with_gaps(3), path_smooth=10.0), [1] * FEATURES).holds


def test_two_swapped_leaf_values_are_found() -> None:
    text = booster(*rows_with_gaps(3)).model_to_string()
    lines = text.splitlines(keepends=True)
    at = next(index for index, line in enumerate(lines) if line.startswith("leaf_value="))
    values = lines[at].removeprefix("leaf_value=").split()
    order = np.argsort([float(value) for value in values])
    first, last = int(order[0]), int(order[-1])
    values[first], values[last] = values[last], values[first]
    swapped = "".join([*lines[:at], f"leaf_value={' '.join(values)}\n", *lines[at + 1 :]])
    assert certify_booster(text, [1] * FEATURES).holds
    found = certify_booster(swapped, [1] * FEATURES)
    assert {violation.tree for violation in found.violations} == {0}
    assert any({first, last} & set(violation.leaves) for violation in found.violations)


@pytest.mark.parametrize(
    ("categories", "more", "word"),
    [
        ([], {"zero_as_missing": True}, "zero"),
        ([], {"linear_tree": True}, "linear"),
        ([1], {}, "categories"),
    ],
)
def test_what_the_proof_does_not_cover_is_refused(categories: list[int], more: dict[str, bool], word: str) -> None:
    table, label = rows_with_gaps(3, gaps=0.0)
    table[:, 1] = np.clip(np.floor(table[:, 1] * 3) + 9, 0, 20)
    certificate = certify_booster(booster(table, label, method=None, categories=categories, **more), [1, 0, 0, 0, 0, 0])
    assert not certificate.holds
    assert all("cannot certify" in violation.reason for violation in certificate.violations if word in violation.reason)
    assert any(word in violation.reason for violation in certificate.violations)


def test_several_classes_are_refused() -> None:
    table, label = rows_with_gaps(1)
    data = lgb.Dataset(table, label=label + (table[:, 0] > 0), params={"verbosity": -1})
    model = lgb.train({"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}, data, 2)
    assert not certify_booster(model, [1] * FEATURES).holds


def cells(values: Sequence[float]) -> list[float]:
    """One point in each cell that thresholds cut, and missing."""
    ends = sorted({*values, 0.0})
    return [ends[0] - 1, *[(a + b) / 2 for a, b in itertools.pairwise(ends)], *ends, ends[-1] + 1, np.nan]


@given(seed=st.integers(0, 10_000), method=st.sampled_from([None, "basic", "intermediate", "advanced"]))
def test_the_certificate_of_one_tree_agrees_with_every_cell_of_the_grid(seed: int, method: str | None) -> None:
    table, label = rows_with_gaps(seed, rows=150, features=3)
    if label.min() == label.max():
        return
    model = booster(table, label, method=method, rounds=1, num_leaves=9)
    _, (tree, *_) = trees_of(model.model_to_string())
    axes = [sorted(cells(tree.threshold[tree.feature == f].tolist())) for f in range(3)]
    grid = np.array(list(itertools.product(*axes)))
    values = np.asarray(model.predict(grid, raw_score=True, num_threads=1)).reshape([len(axis) for axis in axes])
    falls = False
    for feature, axis in enumerate(axes):
        present = np.flatnonzero(~np.isnan(axis))
        rising = present[np.argsort(np.array(axis)[present])]
        falls |= bool((np.diff(np.take(values, rising, axis=feature), axis=feature) < 0).any())
    assert certify_booster(model, [1, 1, 1]).holds == (not falls)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """A small trained model with gaps in its inputs."""
    return fit_pipeline(firms(), defaults(), INPUTS, seed=0)


INPUTS = (Input("late", 1), Input("sales", -1, "log"), Input("age", -1), Input("sector", 0))


def firms() -> pl.DataFrame:
    """Made-up firms."""
    table, _ = rows_with_gaps(5, rows=300, features=4)
    return pl.DataFrame(
        {"late": table[:, 0], "sales": -np.exp(table[:, 1]) * 1e5, "age": table[:, 2], "sector": np.round(table[:, 3])},
        nan_to_null=True,
    )


def defaults() -> NDArray[np.bool_]:
    """Their outcomes."""
    return rows_with_gaps(5, rows=300, features=4)[1] == 1.0


def test_a_trained_pipeline_is_certified_in_all_its_parts(pipeline: Pipeline) -> None:
    certificate = pipeline.certificate()
    assert certificate.holds
    assert certificate.trees > 0
    assert certificate.coefficients > 4


def broken(pipeline: Pipeline) -> dict[str, Pipeline]:
    """The pipeline with one promise broken at a time, by the part that breaks it."""
    signs = pipeline.additive.coefficients
    signed = next(
        i for i, term in enumerate(pipeline.additive.terms) if pipeline.encoder.features[term.feature].direction
    )
    negative = (*signs[:signed], -0.1, *signs[signed + 1 :])
    first = pipeline.encoder.columns[0]
    assert isinstance(first, NumberColumn)
    others = pipeline.encoder.columns[1:]
    better_missing = replace(pipeline.encoder, columns=(replace(first, missing=first.low), *others))
    turned = replace(pipeline.encoder, columns=(replace(first, direction=-1), *others))
    return {
        "additive": replace(pipeline, additive=replace(pipeline.additive, coefficients=negative)),
        "blend": replace(pipeline, weight=1.2),
        "calibration": replace(pipeline, calibration=replace(pipeline.calibration, slope=-1.0)),
        "encoding": replace(pipeline, encoder=better_missing),
        "encoding, turned": replace(pipeline, encoder=turned),
    }


@pytest.mark.parametrize("part", ["additive", "blend", "calibration", "encoding", "encoding, turned"])
def test_one_broken_part_breaks_the_certificate(pipeline: Pipeline, part: str) -> None:
    found = broken(pipeline)[part].certificate()
    assert [violation.part for violation in found.violations] == [part.split(",", maxsplit=1)[0]]


def test_free_signs_are_seen_as_violations() -> None:
    against = ~defaults()
    free = fit_pipeline(firms(), against, INPUTS, seed=0, constrained=False)
    assert not free.certificate().holds
    assert fit_pipeline(firms(), against, INPUTS, seed=0).certificate().holds


def test_a_bag_member_keeps_the_promise_and_a_bad_one_is_found(pipeline: Pipeline) -> None:
    member = refitted(pipeline, firms(), defaults(), seed=3)
    assert member.certificate().holds
    free = replace(pipeline, tuning=replace(pipeline.tuning, constrained=False))
    assert not refitted(free, firms(), ~defaults(), seed=3).certificate().holds
