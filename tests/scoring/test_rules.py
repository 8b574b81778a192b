import polars as pl
import pytest

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
    ],
)
def test_a_rule_that_runs_the_wrong_way_is_refused(sql: str, columns: list[str]) -> None:
    assert wrong_ways(sql) == columns


@pytest.mark.parametrize(
    "sql",
    ["live_listings = 0", "debts_feed = 'complete'", "tax_arrears_fen < 10000 OR srdi_live"],
)
def test_a_rule_that_rewards_the_safer_side_passes(sql: str) -> None:
    assert wrong_ways(sql) == []


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
