import itertools

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.rules import SCHEMA, expression, wrong_ways


@pytest.mark.parametrize(
    "sql",
    [
        "zone_months >= 12",
        "size_class IN ('small', 'micro')",
        "tech_live AND age_months <= 60",
        "COALESCE(overdue_days_now, 0) = 0 AND NOT live_listings IS NULL",
        "age_months BETWEEN 12 AND 24",
        "CASE WHEN srdi_live THEN age_months ELSE 2 * age_months END > 30",
    ],
)
def test_a_rule_over_one_row_is_read(sql: str) -> None:
    assert pl.DataFrame(schema=SCHEMA).select(answer=expression(sql)).schema["answer"] == pl.Boolean


@pytest.mark.parametrize(
    "sql",
    [
        "sales_12m_fen > AVG(sales_12m_fen)",
        "SUM(age_months) > 2",
        "age_months > (SELECT 1)",
        "RANK() OVER (ORDER BY age_months) > 1",
        "FIRST(age_months) = 1",
        "COUNT(*) > 3",
    ],
)
def test_a_rule_that_looks_beyond_its_row_is_refused(sql: str) -> None:
    with pytest.raises(ValueError, match="one row only"):
        expression(sql)


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("nope > 1 AND neither = 2", "there is no column neither\nthere is no column nope"),
        ("age_months", "not true or false"),
        ("size_class > 3", "types do not fit"),
        ("drop table x", "not an SQL expression"),
        ("", "not an SQL expression"),
        ("age_months > 1 " * 300, "at most 2,000 characters"),
        ("LOWER(size_class) = 'x'", "text function Lowercase is not allowed"),
    ],
)
def test_a_rule_that_cannot_be_read_says_why(sql: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        expression(sql)


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("sales_12m_fen < 500000000", ["sales_12m_fen"]),
        ("live_listings = 1", ["live_listings"]),
        ("live_listings >= 1 OR sales_12m_fen > 5", ["live_listings"]),
        ("tax_arrears_fen > 0 AND sales_12m_fen < 7", ["sales_12m_fen", "tax_arrears_fen"]),
        ("NOT srdi_live", ["srdi_live"]),
        ("overdue_days_now <= 3 OR overdue_days_now IS NULL", ["overdue_days_now"]),
        ("COALESCE(live_listings, 0) = 0", ["live_listings"]),
        ("debts_feed = 'missing'", ["debts_feed"]),
        ("sales_12m_fen < 1000 * 1000", ["sales_12m_fen"]),
        ("sales_12m_fen <= 1000000 * 1000", ["sales_12m_fen"]),
        ("tax_arrears_fen >= 10 * 100", ["tax_arrears_fen"]),
        ("tax_late_days_24m >= CAST('30' AS BIGINT)", ["tax_late_days_24m"]),
        ("sales_12m_fen BETWEEN 0 AND 100 * 100", ["sales_12m_fen"]),
        ("NOT (sales_12m_fen > 100 * 100)", ["sales_12m_fen"]),
        ("ABS(sales_12m_fen) < 100 * 100 * 100", ["sales_12m_fen"]),
        ("2 * sales_12m_fen - 4000 <= 100 * 100", ["sales_12m_fen"]),
        ("-sales_12m_fen > -700 * 11", ["sales_12m_fen"]),
        ("innovation_points * 2 = 5", ["innovation_points"]),
        ("sales_12m_fen IN (0, 700)", ["sales_12m_fen"]),
        ("sales_12m_fen - tax_arrears_fen < 12345", ["sales_12m_fen", "tax_arrears_fen"]),
        ("sales_12m_fen < sales_24m_fen", ["sales_12m_fen"]),
        ("sales_12m_fen > 7 * sales_24m_fen + 3", ["sales_24m_fen"]),
        ("size_class = 'medium' AND sales_12m_fen < 5", ["sales_12m_fen"]),
    ],
)
def test_a_rule_that_runs_the_wrong_way_is_refused(sql: str, columns: list[str]) -> None:
    assert wrong_ways(sql) == columns


@pytest.mark.parametrize(
    "sql",
    [
        "live_listings = 0",
        "debts_feed = 'complete'",
        "tax_arrears_fen < 10000 OR srdi_live",
        "sales_12m_fen >= 1000 * 1000",
        "-3 * sales_12m_fen < -1000 * 1000",
        "sales_12m_fen + sales_24m_fen > 3 * tax_arrears_fen + 70",
        "COALESCE(sales_12m_fen, 0) > 20 * 30",
        "innovation_points >= 40",
    ],
)
def test_a_rule_that_rewards_the_safer_side_passes(sql: str) -> None:
    assert wrong_ways(sql) == []


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("sales_12m_fen * sales_6m_fen > 5", "multiplied by numbers only"),
        ("CASE WHEN srdi_live THEN age_months ELSE 2 * age_months END > 30", "directly in a comparison"),
        ("COALESCE(sales_12m_fen, 0) > sales_24m_fen", "comparison of columns inside COALESCE"),
        ("sales_12m_fen IS DISTINCT FROM sales_24m_fen", "IS DISTINCT FROM between columns"),
        ("sales_12m_fen * 1000000000000 > 5", "multiplied by 10,000 at most"),
        ("sales_12m_fen > 1000000000 * 1000000000", "1,000,000,000,000,000 at most"),
        ("size_class < 'n'", "compared by = and <> only"),
    ],
)
def test_a_rule_whose_way_cannot_be_told_is_refused(sql: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        wrong_ways(sql)


@pytest.mark.parametrize(
    ("sql", "number"),
    [("sales_12m_fen <= 500.5", "500.5"), ("sales_12m_fen < 1e6", "1000000.0"), ("age_months IN (1.5)", "1.5")],
)
def test_a_decimal_number_is_refused_as_what_it_is(sql: str, number: str) -> None:
    with pytest.raises(ValueError, match=f"^{number}: numbers are whole[^\\n]*$"):
        expression(sql)


def test_a_cast_of_a_column_is_refused() -> None:
    with pytest.raises(ValueError, match="CAST of a column"):
        expression("CAST(sales_12m_fen AS VARCHAR) < '5'")


@given(
    factors=st.tuples(st.integers(-2, 3), st.integers(-3, 2)),
    constant=st.integers(-40, 40),
    operator=st.sampled_from(["<", "<=", "=", ">=", ">"]),
    values=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=20, max_size=40),
)
def test_no_rule_that_passes_falls_anywhere(
    factors: tuple[int, int], constant: int, operator: str, values: list[tuple[int, int]]
) -> None:
    sql = f"{factors[0]} * sales_12m_fen + {factors[1]} * tax_arrears_fen {operator} {constant} * 2 AND buyers_12m > 1"
    if wrong_ways(sql):
        return
    sales, arrears = zip(*values, strict=True)
    table = pl.DataFrame({"sales_12m_fen": sales, "tax_arrears_fen": arrears}).with_columns(buyers_12m=2)
    passed = table.select(expression(sql)).to_series().to_list()
    for (one, passes), (other, also) in itertools.product(zip(values, passed, strict=True), repeat=2):
        if one[0] <= other[0] and one[1] >= other[1]:
            assert also or not passes


def test_what_a_condition_answers_elsewhere_may_pass_unknown() -> None:
    assert wrong_ways("COALESCE(overdue_days_now, 0) = 0", null_may_pass=True) == []
    assert wrong_ways("overdue_days_now = 1", null_may_pass=True) == ["overdue_days_now"]


def test_a_rule_too_wide_to_be_tried_is_refused() -> None:
    columns = ("sales_3m_fen", "sales_6m_fen", "sales_12m_fen", "sales_24m_fen", "sales_36m_fen", "buyers_12m")
    wide = " AND ".join(
        f"{name} > {number * 10} AND {name} < {number * 1000}" for number, name in enumerate(columns, 2)
    )
    with pytest.raises(ValueError, match="split it"):
        wrong_ways(wide)
