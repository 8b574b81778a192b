"""Days, months and quarters, counted from a day that is handed in.

A month is numbered `year * 12 + month - 1`. Windows are completed calendar months before `as_of`: on 2026-07-15 the
twelve-month window is July 2025 to June 2026, and "age 0" is June 2026.
"""

from datetime import date, timedelta

import polars as pl

MARK_GRACE_DAYS = 15
"""jifen default: a completeness mark of a calendar quarter is expected this many days after its end."""


def month_number(day: date) -> int:
    """The month of a day as a number that grows by one a month."""
    return day.year * 12 + day.month - 1


def first_day(month: int) -> date:
    """The first day of a numbered month."""
    return date(month // 12, month % 12 + 1, 1)


def months_before(as_of: date, months: int) -> date:
    """The first day of the window of `months` completed calendar months before `as_of`."""
    return first_day(month_number(as_of) - months)


def month_of(day: pl.Expr) -> pl.Expr:
    """The numbers of the months of a column of days, Int32."""
    return (day.dt.year() * 12 + day.dt.month().cast(pl.Int32) - 1).cast(pl.Int32)


def age_in_months(day: pl.Expr, as_of: date) -> pl.Expr:
    """Completed months between a day and `as_of`: 0 for the last completed month, -1 for the current one."""
    return pl.lit(month_number(as_of) - 1, pl.Int32) - month_of(day)


def last_quarter_end(day: date) -> date:
    """The last day of the latest calendar quarter that ended on or before `day`."""
    next_day = day + timedelta(days=1)
    return first_day(month_number(next_day) // 3 * 3) - timedelta(days=1)


def marks_due_until(as_of: date) -> date:
    """The day up to which completeness marks must be there by `as_of`: a quarter's end, `MARK_GRACE_DAYS` later."""
    return last_quarter_end(as_of - timedelta(days=MARK_GRACE_DAYS))


def filings_due_until(as_of: date) -> date:
    """The day up to which tax filings are due by `as_of`: a quarter's end, once one more full month has passed.

    Small firms file by quarter, within the month after it; the day is the same for every firm, so that neither a late
    nor a withheld filing moves the window.
    """
    return last_quarter_end(first_day(month_number(as_of) - 1) - timedelta(days=1))


def whole_months_between(earlier: pl.Expr, later: date) -> pl.Expr:
    """Completed months from a column of days to `later`, Int64: 0 on the day itself, 12 on the first anniversary."""
    months = month_number(later) - month_of(earlier).cast(pl.Int64)
    return months - (earlier.dt.day() > later.day).cast(pl.Int64)
