"""What every trained model promises: same bits alone and in a batch, never better for a worse or withheld fact."""

import json
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_contracts.errors import ContractError
from models.calibration import blend_weight, calibrate
from models.encoding import Input
from models.fitting import fit_pipeline, refitted
from models.logistic import Ridge, fit_logistic
from models.metrics import auc, log_loss
from models.pipeline import Pipeline

INPUTS = (Input("late", 1), Input("sales", -1, "log"), Input("age", -1), Input("patents", -1, "log"), Input("zone", 0))


def firms(rows: int, seed: int) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """Made-up firms with gaps, and whether they defaulted."""
    draw = np.random.default_rng(seed)
    late, sales, age = draw.poisson(1.0, rows), np.exp(draw.normal(15, 2, rows)), draw.uniform(0, 30, rows)
    patents, zone = draw.poisson(2.0, rows), draw.integers(0, 4, rows)
    log_odds = 0.8 * late - 0.5 * (np.log(sales) - 15) - 0.05 * age - 0.8
    table = pl.DataFrame({"late": late, "sales": sales, "age": age, "patents": patents, "zone": zone})
    gaps = (pl.Series(name, draw.random(rows) < 0.1) for name in table.columns)
    holes = [pl.when(gap).then(None).otherwise(pl.col(gap.name)).alias(gap.name) for gap in gaps]
    return table.with_columns(holes), draw.random(rows) < 1 / (1 + np.exp(-log_odds))


@pytest.fixture(scope="module", params=["small", "large"])
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    """A trained model of either form."""
    table, defaulted = firms(400, seed=1)
    return fit_pipeline(table, defaulted, INPUTS, seed=0, form=request.param)


ROWS = firms(200, seed=2)[0]


@given(order=st.permutations(range(200)), size=st.integers(1, 200))
def test_a_row_has_the_same_bits_alone_in_any_batch_and_in_any_order(
    pipeline: Pipeline, order: Sequence[int], size: int
) -> None:
    whole = pipeline.log_odds(ROWS)
    shuffled = ROWS[list(order)]
    parts = np.concatenate([pipeline.log_odds(part) for part in shuffled.iter_slices(size)])
    assert parts.tobytes() == whole[list(order)].tobytes()
    alone = pipeline.log_odds(ROWS[order[0]])
    assert alone.tobytes() == whole[[order[0]]].tobytes()


def test_no_rows_give_no_answers(pipeline: Pipeline) -> None:
    assert pipeline.log_odds(ROWS.clear()).tolist() == []


def test_a_pipeline_survives_json_with_the_same_bits(pipeline: Pipeline) -> None:
    plain = json.loads(json.dumps(pipeline.to_json(), allow_nan=False))
    again = Pipeline.from_json(plain, pipeline.booster_texts)
    assert again.log_odds(ROWS).tobytes() == pipeline.log_odds(ROWS).tobytes()
    assert again == pipeline


def test_the_same_seed_gives_the_same_model(pipeline: Pipeline) -> None:
    table, defaulted = firms(400, seed=1)
    again = fit_pipeline(table, defaulted, INPUTS, seed=0, form=pipeline.tuning.form)
    assert again == pipeline


@given(
    row=st.integers(0, 199),
    name=st.sampled_from(["late", "sales", "age", "patents"]),
    steps=st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=8),
)
def test_a_worse_fact_or_a_withheld_one_never_lowers_the_risk(
    pipeline: Pipeline, row: int, name: str, steps: list[float]
) -> None:
    direction = next(one.direction for one in INPUTS if one.name == name)
    from_best = sorted(steps, reverse=direction < 0)
    firm = ROWS.select(pl.all().cast(pl.Float64))[[row] * (len(steps) + 1)]
    edited = firm.with_columns(pl.Series(name, [*from_best, None], dtype=pl.Float64))
    risk = pipeline.log_odds(edited)
    assert pipeline.certificate().holds
    assert (np.diff(risk) >= 0).all()


def test_the_model_learns_and_is_calibrated(pipeline: Pipeline) -> None:
    table, defaulted = firms(3_000, seed=3)
    log_odds = pipeline.log_odds(table)
    assert auc(defaulted, log_odds) > 0.7
    base = np.full(defaulted.size, np.log(defaulted.mean() / (1 - defaulted.mean())))
    assert log_loss(defaulted, log_odds) < log_loss(defaulted, base) - 0.05
    assert abs(float((1 / (1 + np.exp(-log_odds))).mean()) - defaulted.mean()) < 0.06


def test_a_refit_keeps_what_was_chosen_and_learns_from_other_rows(pipeline: Pipeline) -> None:
    table, defaulted = firms(400, seed=9)
    member = refitted(pipeline, table, defaulted, seed=5)
    assert member.encoder is pipeline.encoder
    assert (member.tuning, member.weight, member.calibration) == (
        pipeline.tuning,
        pipeline.weight,
        pipeline.calibration,
    )
    assert member.additive.coefficients != pipeline.additive.coefficients
    assert auc(defaulted, member.log_odds(table)) > 0.7


@pytest.mark.parametrize("defaults", [0, 1, 39, 40])
def test_a_sample_with_one_outcome_is_refused(defaults: int) -> None:
    table, _ = firms(40, seed=1)
    with pytest.raises(ContractError, match="at least two defaults"):
        fit_pipeline(table, np.arange(40) < defaults, INPUTS, seed=0)


def test_four_rows_are_enough_to_train() -> None:
    table, _ = firms(4, seed=1)
    assert fit_pipeline(table, np.arange(4) < 2, INPUTS, seed=0).certificate().holds


def gradient(matrix: NDArray[np.float64], label: NDArray[np.float64], beta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slope of the unpenalised loss."""
    residual = 1 / (1 + np.exp(-(beta[0] + matrix @ beta[1:]))) - label
    return np.append(residual.sum(), matrix.T @ residual)


@given(seed=st.integers(0, 1_000), strength=st.sampled_from([0.1, 1.0, 30.0]))
def test_the_logistic_fit_meets_the_conditions_of_its_optimum(seed: int, strength: float) -> None:
    draw = np.random.default_rng(seed)
    matrix = draw.normal(size=(80, 5))
    label = (draw.random(80) < 1 / (1 + np.exp(-matrix[:, 0] + matrix[:, 1]))).astype(np.float64)
    signed = np.array([True, True, True, False, False])
    beta = fit_logistic(matrix, label, Ridge(np.full(5, strength), signed))
    slope = gradient(matrix, label, beta) + np.append(0.0, strength * beta[1:])
    held = np.append(np.False_, signed) & (beta == 0)
    assert (beta[1:][signed] >= 0).all()
    assert np.abs(slope[~held]).max() < 1e-3
    assert (slope[held] >= -1e-3).all()


@given(seed=st.integers(0, 1_000), scale=st.floats(0.01, 20.0), shift=st.floats(-5, 5))
def test_calibration_keeps_the_order_of_every_pair_and_the_auc(seed: int, scale: float, shift: float) -> None:
    draw = np.random.default_rng(seed)
    score = np.round(draw.normal(size=100), 2) * scale + shift
    defaulted = draw.random(100) < 1 / (1 + np.exp(-score / scale))
    defaulted[:2] = [True, False]
    fitted = calibrate(score, defaulted)
    assert fitted.slope > 0
    assert auc(defaulted, fitted.log_odds(score)) == auc(defaulted, score)
    assert log_loss(defaulted, fitted.log_odds(score)) <= log_loss(defaulted, score) + 1e-9


def test_even_a_score_that_ranks_backwards_keeps_a_rising_calibration() -> None:
    score = np.linspace(-2, 2, 200)
    assert calibrate(score, score < 0).slope > 0


def test_the_blend_takes_all_of_a_part_that_knows_and_none_of_noise() -> None:
    draw = np.random.default_rng(0)
    good = draw.normal(size=2_000)
    defaulted = draw.random(2_000) < 1 / (1 + np.exp(-good))
    noise = draw.normal(size=2_000)
    assert blend_weight(good, noise, defaulted) > 0.9
    assert blend_weight(noise, good, defaulted) < 0.1
