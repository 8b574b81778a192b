"""From log-odds to the PD that prices and the PD that sizes."""

import math
from dataclasses import replace
from importlib.resources import files

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.artefact import load
from models.metrics import jeffreys_upper
from models.registry import models_folder
from models.replay import FEATURES
from models.risk import (
    CONFIDENCE,
    LEAST_OBLIGORS,
    Estimator,
    calibration_by_grade,
    grade_bounds,
    logit,
    probability,
    shift,
)
from scoring.policy import parse_policy
from scoring.score import PPB
from tests.ground import ground

POLICY = parse_policy(files("scoring").joinpath("policies", "torch-points.2026-11-01.yaml").read_text(encoding="utf-8"))
TENDENCY = 0.025
"""The policy's central tendency; at this base rate nothing is shifted."""
EDGES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08)


def graded(*groups: tuple[float, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds and outcomes of groups of (PD, obligors, defaults)."""
    odds = np.concatenate([np.full(count, logit(pd)) for pd, count, _ in groups])
    flags = np.concatenate([np.arange(count) < defaults for _, count, defaults in groups])
    return odds, flags


def test_the_shift_moves_the_training_rate_to_the_central_tendency() -> None:
    assert shift(TENDENCY, POLICY) == 0
    moved = logit(0.22) + shift(0.22, POLICY)
    assert probability(np.array([moved]))[0] == pytest.approx(TENDENCY, abs=1e-9)


def test_the_bounds_of_a_worked_example() -> None:
    # A1: 100 firms, none defaulted; A2: 5 and B1: 10, too few alone, join B2's 30 with 1 default; C1: 40 with 2;
    # C2: 7 and D: 3, the worst end, join C1.
    odds, flags = graded(
        (0.004, 100, 0), (0.007, 5, 0), (0.015, 10, 0), (0.025, 30, 1), (0.04, 40, 2), (0.06, 7, 1), (0.3, 3, 1)
    )
    bounds = grade_bounds(odds, flags, TENDENCY, POLICY)
    merged = [jeffreys_upper(0, 100, 0.9), *[jeffreys_upper(1, 45, 0.9)] * 3, *[jeffreys_upper(4, 50, 0.9)] * 3]
    assert bounds == pytest.approx(merged, abs=2e-9)
    # 1 default in 45: nine tenths of the area under x^0.5 (1 - x)^43.5 lie below the bound.
    x = (np.arange(1_000_000) + 0.5) / 1_000_000
    density = x**0.5 * (1 - x) ** 43.5
    assert density[x < bounds[1]].sum() / density.sum() == pytest.approx(0.9, abs=1e-4)


def test_calibration_by_grade_sets_what_became_of_the_training_rows_beside_what_was_expected() -> None:
    # At twice the central tendency's odds each PD is shifted before it is graded, and not before it is added up.
    base_rate = 0.05
    up = -shift(base_rate, POLICY)
    odds, flags = graded((0.004, 100, 1), (0.025, 30, 2), (0.3, 20, 9))
    trained = load(models_folder(ground().home) / ground().champion)
    model = replace(
        trained,
        pipeline=replace(trained.pipeline, base_rate=base_rate),
        oof_log_odds=odds + up,
        oof_defaulted=flags,
    )
    found = calibration_by_grade(model, POLICY)
    assert found["grade"].to_list() == ["A1", "A2", "B1", "B2", "C1", "C2", "D"]
    assert found["obligors"].to_list() == [100, 0, 0, 30, 0, 0, 20]
    assert found["defaults"].to_list() == [1, 0, 0, 2, 0, 0, 9]
    rows = ((0.004, 100), None, None, (0.025, 30), None, None, (0.3, 20))
    expected = [0.0 if one is None else one[1] / (1 + math.exp(-(logit(one[0]) + up))) for one in rows]
    assert found["expected"].to_list() == pytest.approx(expected, abs=1e-6)
    assert found["pd_hi"].to_list() == grade_bounds(odds + up, flags, base_rate, POLICY)


def test_a_bound_never_falls_from_a_better_to_a_worse_grade() -> None:
    odds, flags = graded((0.004, 50, 6), (0.007, 400, 0), (0.015, 400, 4))
    bounds = grade_bounds(odds, flags, TENDENCY, POLICY)
    assert bounds[0] == bounds[1] == bounds[2] == pytest.approx(jeffreys_upper(6, 50, 0.9), abs=2e-9)


def test_the_bounds_move_with_the_shift() -> None:
    odds, flags = graded((0.2, 100, 20))
    bounds = grade_bounds(odds, flags, 0.2, POLICY)
    upper = jeffreys_upper(20, 100, CONFIDENCE)
    expected = 1 / (1 + math.exp(-(logit(upper) + shift(0.2, POLICY))))
    assert bounds == pytest.approx([expected] * 7, abs=2e-9)


@given(
    groups=st.lists(st.tuples(st.floats(0.0005, 0.9), st.integers(1, 60), st.floats(0, 1)), min_size=1, max_size=12),
    base=st.floats(0.01, 0.5),
)
def test_bounds_rise_and_lie_inside_one(groups: list[tuple[float, int, float]], base: float) -> None:
    odds, flags = graded(*((pd, count, int(share * count)) for pd, count, share in groups))
    bounds = grade_bounds(odds, flags, base, POLICY)
    assert bounds == sorted(bounds)
    assert len(bounds) == len(EDGES) + 1
    assert 0 < bounds[0] <= bounds[-1] < 1


def test_fewer_than_the_least_obligors_share_one_bound() -> None:
    odds, flags = graded((0.004, LEAST_OBLIGORS - 1, 1), (0.3, LEAST_OBLIGORS - 1, 5))
    bounds = grade_bounds(odds, flags, TENDENCY, POLICY)
    assert bounds == pytest.approx([jeffreys_upper(6, 2 * LEAST_OBLIGORS - 2, 0.9)] * 7, abs=2e-9)


@given(z=st.lists(st.floats(-60, 60), min_size=1, max_size=30))
def test_a_probability_is_whole_parts_per_billion_inside_0_and_1_and_keeps_the_order(z: list[float]) -> None:
    found = probability(np.array(sorted(z)))
    assert found.to_list() == sorted(found)
    assert all(1 / PPB <= pd <= 1 - 1 / PPB and round(pd * PPB) / PPB == pd for pd in found)


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    return Estimator(load(models_folder(ground().home) / ground().champion), POLICY)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return pl.read_parquet(ground().root / FEATURES)


def test_the_cautious_pd_is_never_below_the_pd_and_rises_with_risk_and_grade(
    estimator: Estimator, rows: pl.DataFrame
) -> None:
    found = estimator.estimate(rows)
    assert (found.pd_hi >= found.pd).all()
    bounds = estimator.grade_bounds
    grade = [sum(pd >= edge for edge in EDGES) for pd in found.pd]
    assert all(high >= bounds[place] for high, place in zip(found.pd_hi, grade, strict=True))


def test_a_row_is_estimated_alone_as_among_others(estimator: Estimator, rows: pl.DataFrame) -> None:
    whole = estimator.estimate(rows)
    for row in (0, 17, rows.height - 1):
        alone = estimator.estimate(rows[row : row + 1])
        assert (alone.pd[0], alone.pd_hi[0]) == (whole.pd[row], whole.pd_hi[row])


def test_nobody_is_estimated_as_nobody(estimator: Estimator, rows: pl.DataFrame) -> None:
    found = estimator.estimate(rows.clear())
    assert (found.pd.len(), found.pd_hi.dtype) == (0, pl.Float64)


def test_an_improvement_or_a_clean_reading_is_estimated_as_if_it_were_the_row_itself(
    estimator: Estimator, rows: pl.DataFrame
) -> None:
    risk = estimator.risk(rows)
    for name, improvement in risk.improvements.items():
        again = estimator.estimate(improvement.features)
        assert again.pd.to_list() == improvement.estimate.pd.to_list(), name
        assert again.pd_hi.to_list() == improvement.estimate.pd_hi.to_list(), name
        assert (improvement.estimate.pd <= risk.now.pd).all(), name
        assert (improvement.estimate.pd_hi <= risk.now.pd_hi).all(), name
