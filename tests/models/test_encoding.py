"""What a model sees of a table: orientation, clipping, missing values, text."""

import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import ContractError, UsageError
from models.categories import category_column, cross_fitted
from models.encoding import Encoder, Input, fit_encoder, oriented


def encoder_of(values: list[float | None], direction: int, scale: str = "linear") -> Encoder:
    """An encoder that learnt one column."""
    return fit_encoder(pl.DataFrame({"x": values}, schema={"x": pl.Float64}), [Input("x", direction, scale)])  # pyright: ignore[reportArgumentType]


def encoded(encoder: Encoder, values: list[float | None]) -> list[float]:
    """That column of a few rows."""
    return encoder.encoded(pl.DataFrame({"x": values}, schema={"x": pl.Float64}))[:, 0].tolist()


@given(
    training=st.lists(st.one_of(st.none(), st.floats()), min_size=2, max_size=20),
    low=st.floats(),
    high=st.floats(),
    direction=st.sampled_from([-1, 1]),
    scale=st.sampled_from(["linear", "log"]),
)
def test_a_worse_value_is_never_encoded_lower_and_missing_is_worst(
    training: list[float | None], low: float, high: float, direction: int, scale: str
) -> None:
    encoder = encoder_of(training, direction, scale)
    if not encoder.features:
        return
    better, worse = (low, high) if low * direction <= high * direction else (high, low)
    first, second, missing = encoded(encoder, [better, worse, None])
    assert math.isfinite(missing)
    assert missing >= max(first, second)
    if math.isfinite(low) and math.isfinite(high):
        assert first <= second


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, -math.inf])
def test_null_nan_and_infinity_are_the_same_missing_value(nothing: float | None) -> None:
    encoder = encoder_of([1.0, 2.0, 9.0], direction=-1)
    low, worst, missing = encoded(encoder, [9.0, -5.0, nothing])
    assert (low, worst) == (-9.0, -1.0)
    assert missing > worst


def test_values_outside_training_are_clipped_to_it() -> None:
    assert encoded(encoder_of([1.0, 2.0, 9.0], direction=1), [-100.0, 100.0]) == [1.0, 9.0]


@pytest.mark.parametrize("values", [[3.0, 3.0, 3.0], [None, None, None], [math.nan, None, math.inf]])
def test_a_column_that_says_nothing_has_no_effect(values: list[float | None]) -> None:
    for direction in (-1, 0, 1):
        assert encoder_of(values, direction).features == ()


def test_one_value_or_missing_still_says_something() -> None:
    assert encoded(encoder_of([3.0, None], direction=1), [3.0, None])[1] > 3.0


def test_an_undirected_gap_stays_a_gap_only_if_training_had_one() -> None:
    assert math.isnan(encoded(encoder_of([1.0, 2.0, None], direction=0), [None])[0])
    assert encoded(encoder_of([1.0, 2.0, 9.0], direction=0), [None]) == [2.0]


def test_the_log_scale_keeps_the_sign() -> None:
    values = oriented(pl.Series("x", [-math.e + 1, 0.0, math.e - 1]), 1, "log")
    assert values.tolist() == pytest.approx([-1.0, 0.0, 1.0])


def test_every_missing_column_is_named_at_once() -> None:
    encoder = fit_encoder(pl.DataFrame({"a": [1, 2], "b": [1, 2], "c": [1, 2]}), [Input("a"), Input("b"), Input("c")])
    with pytest.raises(ContractError) as caught:
        encoder.encoded(pl.DataFrame({"b": [1]}))
    assert caught.value.problems == ("a", "c")


def test_an_encoder_survives_json_with_the_same_bits() -> None:
    table = pl.DataFrame({"a": [0.1, 0.2, None], "b": ["x", None, "y"], "c": [1, 5, 7]})
    numbers = fit_encoder(table, [Input("a"), Input("c", -1, "log")])
    whole = Encoder((*numbers.columns, category_column(table, "b", np.array([True, False, False]))))
    again = Encoder.from_json(json.loads(json.dumps(whole.to_json(), allow_nan=False)))
    assert again.encoded(table).tobytes() == whole.encoded(table).tobytes()


def test_text_that_training_never_saw_gets_the_base_rate() -> None:
    table = pl.DataFrame({"b": ["x"] * 30 + ["y"] * 30})
    column = category_column(table, "b", np.arange(60) < 15)
    evidence, frequency, level = column.arrays(pl.DataFrame({"b": ["z", None, "x"]}))
    assert evidence[:2].tolist() == pytest.approx([math.log(0.25 / 0.75)] * 2)
    assert frequency[:2].tolist() == [0.0, 0.0]
    assert level.tolist()[:2] == [-1.0, -1.0]
    assert evidence[2] > evidence[0]


def test_a_null_in_training_is_a_level_of_its_own() -> None:
    table = pl.DataFrame({"b": ["x"] * 30 + [None] * 30})
    evidence, _, _ = category_column(table, "b", np.arange(60) < 15).arrays(pl.DataFrame({"b": ["x", None, "z"]}))
    assert evidence[0] > evidence[2] > evidence[1]


def test_no_row_votes_on_its_own_level() -> None:
    codes, folds = np.array([0, 0, 0, 0]), np.array([0, 0, 1, 1])
    label = np.array([True, True, False, False])
    other = cross_fitted(codes, label, folds, held_out=None)
    assert (other[:2] < other[2:]).all()


def test_the_held_out_fold_votes_on_nobody() -> None:
    codes, folds = np.zeros(6, dtype=np.int64), np.array([0, 0, 1, 1, 2, 2])
    label = np.array([True, False, True, False, True, False])
    flipped = np.where(folds == 2, ~label, label)
    first, second = (cross_fitted(codes, one, folds, held_out=2) for one in (label, flipped))
    assert first.tolist() == second.tolist()


def test_an_input_named_twice_or_with_an_unknown_direction_is_refused() -> None:
    with pytest.raises(UsageError):
        fit_encoder(pl.DataFrame({"a": [1, 2]}), [Input("a"), Input("a", 1)])
    with pytest.raises(UsageError):
        Input("a", 2)
