from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from models.leaks import alarms

ROWS = 600


@pytest.fixture(name="stream")
def _stream() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(name="defaulted")
def _defaulted(stream: np.random.Generator) -> NDArray[np.bool_]:
    return stream.random(ROWS) < 0.2


def kinds(table: pl.DataFrame, defaulted: NDArray[np.bool_]) -> list[tuple[str, str]]:
    return [(alarm.column, alarm.kind) for alarm in alarms(table, defaulted)]


def test_honest_columns_raise_no_alarm(stream: np.random.Generator, defaulted: NDArray[np.bool_]) -> None:
    noise = stream.normal(size=ROWS)
    table = pl.DataFrame(
        {
            "some_power": noise + defaulted,
            "gaps": pl.Series(noise).set(pl.Series(stream.random(ROWS) < 0.3), None),
            "gaps_too": pl.Series(noise).set(pl.Series(stream.random(ROWS) < 0.2), None),
            "flag": stream.random(ROWS) < 0.5,
            "trade": stream.choice(["a", "b", "c"], ROWS),
            "constant": np.ones(ROWS),
            "amount_fen": stream.integers(0, 10**9, ROWS),
            "day": [date(2024, 1, 1) + timedelta(days=int(d)) for d in stream.integers(0, 300, ROWS)],
        }
    ).with_columns(nothing=pl.lit(None))
    assert alarms(table, defaulted) == ()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_value_that_ranks_nearly_all_raises_an_alarm_either_way_round(
    sign: int, stream: np.random.Generator, defaulted: NDArray[np.bool_]
) -> None:
    table = pl.DataFrame({"written_off_fen": sign * (3.0 * defaulted + stream.normal(size=ROWS))})
    (alarm,) = alarms(table, defaulted)
    assert (alarm.column, alarm.kind) == ("written_off_fen", "power")
    assert alarm.figure > 0.85
    assert "0.9" in alarm.sentence


def test_a_term_rewritten_after_default_raises_an_alarm_though_its_order_tells_nothing(
    stream: np.random.Generator, defaulted: NDArray[np.bool_]
) -> None:
    years = 12 * stream.integers(1, 20, ROWS)
    term = np.where(defaulted, years + stream.integers(1, 12, ROWS) - 6, years)
    ((column, kind),) = kinds(pl.DataFrame({"term_months": term}), defaulted)
    assert (column, kind) == ("term_months", "shape")


@pytest.mark.parametrize("modulus", [12, 10, 100, 1000])
def test_a_number_that_is_round_unless_it_defaulted_raises_an_alarm_though_no_value_repeats(
    modulus: int, stream: np.random.Generator, defaulted: NDArray[np.bool_]
) -> None:
    round_ones = modulus * stream.permutation(10**6)[:ROWS]
    amount = round_ones + defaulted * stream.integers(1, modulus, ROWS)
    (alarm,) = alarms(pl.DataFrame({"amount": amount}), defaulted)
    assert alarm.kind == "shape"
    assert "remainder" in alarm.sentence


def test_a_fraction_that_only_defaults_have_raises_an_alarm(
    stream: np.random.Generator, defaulted: NDArray[np.bool_]
) -> None:
    amount = stream.permutation(10**6)[:ROWS] + 0.25 * defaulted
    assert "whole" in alarms(pl.DataFrame({"amount": amount}), defaulted)[0].sentence


def test_a_middle_that_defaults_raises_an_alarm(stream: np.random.Generator, defaulted: NDArray[np.bool_]) -> None:
    ends = np.where(stream.random(ROWS) < 0.5, 3.0, -3.0)
    value = np.where(defaulted, 0.0, ends) + stream.normal(size=ROWS) * 0.3
    assert kinds(pl.DataFrame({"value": value}), defaulted) == [("value", "shape")]


def test_text_that_tells_the_outcome_raises_an_alarm(stream: np.random.Generator, defaulted: NDArray[np.bool_]) -> None:
    told = np.where(defaulted ^ (stream.random(ROWS) < 0.03), "closed", "open")
    assert kinds(pl.DataFrame({"status": told}), defaulted) == [("status", "shape")]


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
def test_missing_values_that_give_the_label_away_raise_an_alarm(
    nothing: float | None, stream: np.random.Generator, defaulted: NDArray[np.bool_]
) -> None:
    gone = defaulted & (stream.random(ROWS) < 0.3)
    values = [nothing if lost else float(value) for lost, value in zip(gone, stream.normal(size=ROWS), strict=True)]
    (alarm,) = alarms(pl.DataFrame({"x21": pl.Series(values, dtype=pl.Float64)}), defaulted)
    assert (alarm.column, alarm.kind) == ("x21", "missing")
    assert "100.0%" in alarm.sentence


def test_flags_that_tell_little_alone_raise_an_alarm_together(
    stream: np.random.Generator, defaulted: NDArray[np.bool_]
) -> None:
    first = stream.random(ROWS) < 0.5
    other = first ^ defaulted
    table = pl.DataFrame(
        {
            "a": pl.Series(np.ones(ROWS)).set(pl.Series(first), None),
            "b": pl.Series(np.ones(ROWS)).set(pl.Series(other), None),
        }
    )
    (alarm,) = alarms(table, defaulted)
    assert alarm.kind == "missing_jointly"
    assert set(alarm.columns) == {"a", "b"}


def test_the_label_under_another_name_raises_an_alarm(defaulted: NDArray[np.bool_]) -> None:
    table = pl.DataFrame(
        {
            "copy": defaulted,
            "opposite": (~defaulted).astype(int),
            "words": np.where(defaulted, "CHGOFF", "PIF"),
            "dated_only_if_lost": pl.Series([date(2020, 1, 1) if bad else None for bad in defaulted]),
        }
    )
    assert [pair for pair in kinds(table, defaulted) if pair[1] == "target"] == [
        (name, "target") for name in table.columns
    ]


def test_columns_that_name_rows_raise_an_alarm(defaulted: NDArray[np.bool_]) -> None:
    table = pl.DataFrame({"loan_nr": np.arange(ROWS) * 7 + 3, "name": [f"firm {row}" for row in range(ROWS)]})
    assert kinds(table, defaulted) == [("loan_nr", "id"), ("name", "id")]


def test_a_sample_without_defaults_or_rows_raises_no_alarm() -> None:
    table = pl.DataFrame({"a": [1.0, 2.0, None], "b": ["x", None, "y"]})
    assert alarms(table, np.zeros(3, dtype=np.bool_)) == ()
    assert alarms(table.clear(), np.zeros(0, dtype=np.bool_)) == ()
