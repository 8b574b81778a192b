from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.calendar import (
    age_in_months,
    filings_due_until,
    last_quarter_end,
    marks_due_until,
    months_before,
    whole_months_between,
)

DAYS = st.dates(date(1990, 1, 1), date(2100, 12, 31))


@pytest.mark.parametrize(
    ("day", "quarter_end", "marks", "filings"),
    [
        (date(2026, 7, 1), date(2026, 6, 30), date(2026, 3, 31), date(2026, 3, 31)),
        (date(2026, 7, 15), date(2026, 6, 30), date(2026, 6, 30), date(2026, 3, 31)),
        (date(2026, 8, 1), date(2026, 6, 30), date(2026, 6, 30), date(2026, 6, 30)),
        (date(2026, 1, 15), date(2025, 12, 31), date(2025, 12, 31), date(2025, 9, 30)),
        (date(2020, 2, 22), date(2019, 12, 31), date(2019, 12, 31), date(2019, 12, 31)),
    ],
)
def test_a_quarter_is_due_after_its_grace(day: date, quarter_end: date, marks: date, filings: date) -> None:
    assert (last_quarter_end(day), marks_due_until(day), filings_due_until(day)) == (quarter_end, marks, filings)


@given(day=DAYS)
def test_what_is_due_is_a_quarter_end_in_the_past_and_never_moves_back(day: date) -> None:
    for due in (marks_due_until, filings_due_until):
        until = due(day)
        assert until < day
        assert (until + timedelta(days=1)).day == 1
        assert until.month % 3 == 0
        assert due(day + timedelta(days=1)) >= until


@given(day=DAYS)
def test_a_window_starts_so_many_completed_months_back(day: date) -> None:
    start = months_before(day, 12)
    ages = pl.select(
        first=age_in_months(pl.lit(start), day),
        before=age_in_months(pl.lit(start - timedelta(days=1)), day),
        now=age_in_months(pl.lit(day), day),
    )
    assert ages.row(0) == (11, 12, -1)


@pytest.mark.parametrize(
    ("earlier", "later", "months"),
    [
        (date(2025, 7, 1), date(2026, 7, 1), 12),
        (date(2025, 7, 2), date(2026, 7, 1), 11),
        (date(2026, 7, 1), date(2026, 7, 1), 0),
        (date(2026, 1, 31), date(2026, 2, 28), 0),
    ],
)
def test_a_month_is_whole_on_its_day(earlier: date, later: date, months: int) -> None:
    assert pl.select(whole_months_between(pl.lit(earlier), later)).item() == months
