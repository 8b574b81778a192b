"""A model of any wide table: what it accepts, what it keeps, what it says of leaks."""

import datetime as dt
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import ContractError, UsageError
from models.metrics import auc
from models.training import FittedTable, fit_table

SECTORS = ("farming", "machinery", "software", "trade")


def wide(rows: int, seed: int) -> pl.DataFrame:
    """A table with every kind of column, gaps, and the outcome `bad`."""
    draw = np.random.default_rng(seed)
    debt, age, sector = draw.normal(size=rows), draw.integers(0, 40, rows), draw.integers(0, 4, rows)
    log_odds = 1.2 * debt - 0.06 * age + 0.7 * (sector == 1) - 0.3
    gap = draw.random((3, rows)) < 0.1
    return pl.DataFrame(
        {
            "debt": np.where(gap[0], np.inf, np.where(gap[1], np.nan, debt)),
            "age": pl.Series(age, dtype=pl.Int16),
            "sector": pl.Series([None if gap[2][i] else SECTORS[sector[i]] for i in range(rows)]),
            "listed": draw.random(rows) < 0.5,
            "paid": pl.Series([Decimal(int(value)) / 100 for value in draw.integers(0, 10**6, rows)]),
            "since": [dt.date(2020, 1, 1) + dt.timedelta(days=int(day)) for day in draw.integers(0, 900, rows)],
            "same": pl.Series([7] * rows),
            "empty": pl.Series([None] * rows, dtype=pl.Float64),
            "nothing": pl.Series([None] * rows),
            "bad": draw.random(rows) < 1 / (1 + np.exp(-log_odds)),
        }
    )


DIRECTIONS = {"debt": 1, "age": -1, "listed": 1}


@pytest.fixture(scope="module")
def fitted() -> FittedTable:
    """Trained with directions."""
    return fit_table(wide(500, 1), "bad", directions=DIRECTIONS)


def test_every_kind_of_column_is_read_and_the_model_learns(fitted: FittedTable) -> None:
    table = wide(2_000, 2)
    pd = fitted.pd(table)
    assert (pd.name, pd.dtype, pd.null_count()) == ("pd", pl.Float64, 0)
    assert pd.is_between(0, 1, closed="none").all()
    assert auc(table["bad"].to_numpy(), pd.to_numpy()) > 0.7


@given(start=st.integers(0, 1_900), size=st.integers(1, 40))
def test_a_row_alone_has_the_bits_it_has_in_a_batch(fitted: FittedTable, start: int, size: int) -> None:
    table = wide(2_000, 2)
    whole = fitted.pd(table).to_numpy()
    assert fitted.pd(table[start : start + size]).to_numpy().tobytes() == whole[start : start + size].tobytes()
    assert fitted.pd(table[start]).to_numpy().tobytes() == whole[[start]].tobytes()


def test_other_columns_and_their_order_do_not_matter(fitted: FittedTable) -> None:
    table = wide(50, 3)
    turned = table.select(reversed(table.columns)).with_columns(extra=pl.lit("x"))
    assert fitted.pd(turned).to_list() == fitted.pd(table.drop("bad")).to_list()


def test_columns_missing_at_prediction_are_all_named(fitted: FittedTable) -> None:
    with pytest.raises(ContractError) as caught:
        fitted.pd(wide(3, 1).drop("debt", "sector"))
    assert caught.value.problems == ("debt", "sector")


@given(row=st.integers(0, 99), values=st.lists(st.floats(-4, 4), min_size=2, max_size=6))
def test_directions_are_kept_and_missing_is_never_better_than_the_worst(
    fitted: FittedTable, row: int, values: list[float]
) -> None:
    assert fitted.certificate.holds
    copies = wide(100, 4)[[row] * (len(values) + 1)]
    debt = copies.with_columns(pl.Series("debt", [*sorted(values), None], dtype=pl.Float64))
    assert fitted.pd(debt).diff().drop_nulls().min() >= 0  # pyright: ignore[reportOperatorIssue]
    ages = sorted((round(value * 10) for value in values), reverse=True)
    age = copies.with_columns(pl.Series("age", [*ages, None], dtype=pl.Int16))
    assert fitted.pd(age).diff().drop_nulls().min() >= 0  # pyright: ignore[reportOperatorIssue]


@pytest.mark.parametrize("column", ["same", "empty", "nothing"])
def test_a_column_that_said_nothing_in_training_has_no_effect(fitted: FittedTable, column: str) -> None:
    table = wide(20, 5)
    assert fitted.pd(table.with_columns(pl.lit(3.5).alias(column))).to_list() == fitted.pd(table).to_list()


def test_text_never_seen_and_null_text_get_an_answer(fitted: FittedTable) -> None:
    table = wide(2, 5).with_columns(sector=pl.Series([None, "space"], dtype=pl.String))
    assert fitted.pd(table).is_finite().all()


def test_the_same_seed_gives_the_same_model(fitted: FittedTable) -> None:
    again = fit_table(wide(500, 1), "bad", directions=DIRECTIONS)
    assert again.pipeline == fitted.pipeline
    assert again.alarms == fitted.alarms


def test_one_column_is_enough() -> None:
    table = wide(300, 6)
    fitted = fit_table(table.select("debt"), table["bad"].cast(pl.Int8))
    assert auc(table["bad"].to_numpy(), fitted.pd(table).to_numpy()) > 0.6


def test_only_columns_that_say_nothing_give_the_base_rate() -> None:
    table = wide(200, 7)
    pd = fit_table(table.select("same", "empty"), table["bad"]).pd(table)
    assert pd.n_unique() == 1
    assert pd[0] == pytest.approx(table["bad"].mean(), abs=1e-3)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (pl.Series([False] * 20), "0 defaults in 20 rows"),
        (pl.Series([True] * 20), "20 defaults in 20 rows"),
        (pl.Series([0, 1, 2, 0] * 5), "other than 0 and 1"),
        (pl.Series([True, None] * 10), "10 null"),
        (pl.Series(["yes", "no"] * 10), "boolean, or 0 and 1"),
        (pl.Series([True, False] * 5), "20 rows but 10 labels"),
        ("absent", "lacks 1 column"),
    ],
)
def test_a_target_that_cannot_be_learnt_is_refused_with_the_reason(target: pl.Series | str, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        fit_table(wide(20, 1).drop("bad"), target)


def test_every_direction_that_cannot_be_kept_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        fit_table(wide(20, 1), "bad", directions={"absent": 1, "sector": -1, "age": 2})
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["absent", "age", "sector"]


def test_a_table_without_columns_or_with_nested_ones_is_refused() -> None:
    with pytest.raises(ContractError):
        fit_table(wide(20, 1).select("bad"), "bad")
    with pytest.raises(ContractError, match="lists"):
        fit_table(wide(20, 1).with_columns(lists=pl.lit([1, 2])), "bad")


def test_leaks_raise_alarms_and_never_an_error() -> None:
    table = wide(600, 8)
    bad = table["bad"]
    spoiled = table.with_columns(
        copy=bad,
        term=pl.Series(np.where(bad.to_numpy(), 25, 24) + 12 * (np.arange(600) % 7)),
        told=pl.when(bad).then(None).otherwise(pl.lit(1.0)),
        number=pl.int_range(600),
    )
    named = {alarm.column for alarm in fit_table(spoiled, "bad").alarms}
    assert {"copy", "term", "told", "number"} <= named
    assert not {"debt", "age", "sector"} & named


def test_on_german_credit_it_ranks_unseen_applicants_and_keeps_its_directions(shared_data: Path) -> None:
    table = pl.read_parquet(shared_data / "german_credit" / "data.parquet")
    unseen = table.with_row_index("row").filter(pl.col("row") % 4 == 0).drop("row")
    seen = table.join(unseen, on=table.columns, how="anti")
    fitted = fit_table(seen, "is_default", directions={"duration_in_month": 1, "age_in_years": -1})
    pd = fitted.pd(unseen)
    assert fitted.certificate.holds
    assert auc(unseen["is_default"].to_numpy(), pd.to_numpy()) > 0.72
    longer = fitted.pd(unseen.with_columns(pl.col("duration_in_month") + 6))
    assert (longer >= pd).all()
    assert (longer > pd).any()
