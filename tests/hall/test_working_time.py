"""Deadlines count working time by the official calendar; every golden case was worked out by hand from its source."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from chinese_calendar import is_workday
from hypothesis import given
from hypothesis import strategies as st

from api.reference import bring_in_line

BEIJING = ZoneInfo("Asia/Shanghai")
OPENS, CLOSES = 540, 1020
UNKNOWN = 2099

# 国务院办公厅关于2026年部分节假日安排的通知, 国办发明电〔2025〕7号: off 1 to 3 January (4 January, a Sunday, worked),
# 15 to 23 February (Saturdays 14 and 28 February worked), 4 to 6 April, 1 to 5 May (Saturday 9 May worked), 19 to 21
# June, 25 to 27 September, 1 to 7 October (Sunday 20 September and Saturday 10 October worked).
GOLDEN = {
    "within a day": ("2026-03-02 10:00", 120, "2026-03-02 12:00"),
    "over a weekend": ("2026-03-06 16:00", 120, "2026-03-09 10:00"),
    "before opening": ("2026-03-03 07:30", 120, "2026-03-03 11:00"),
    "after closing": ("2026-03-03 19:00", 120, "2026-03-04 11:00"),
    "on the stroke of closing": ("2026-03-03 17:00", 60, "2026-03-04 10:00"),
    "ends on the stroke of closing": ("2026-03-03 15:00", 120, "2026-03-03 17:00"),
    "half a minute before closing": ("2026-03-03 16:59:30", 1, "2026-03-04 09:00:30"),
    "no time at all waits for opening": ("2026-03-07 12:00", 0, "2026-03-09 09:00"),
    "元旦, then a Sunday that is worked": ("2025-12-31 16:00", 120, "2026-01-04 10:00"),
    "five days over 春节, with the Saturday before it": ("2026-02-13 10:00", 2400, "2026-02-27 10:00"),
    "the Saturday after 春节": ("2026-02-27 16:30", 60, "2026-02-28 09:30"),
    "清明": ("2026-04-03 16:00", 120, "2026-04-07 10:00"),
    "劳动节": ("2026-04-30 16:00", 120, "2026-05-06 10:00"),
    "the Saturday after 劳动节": ("2026-05-08 16:00", 120, "2026-05-09 10:00"),
    "端午": ("2026-06-18 16:00", 120, "2026-06-22 10:00"),
    "a Sunday before 国庆 that is worked": ("2026-09-19 12:00", 60, "2026-09-20 10:00"),
    "中秋": ("2026-09-24 16:00", 120, "2026-09-28 10:00"),
    "国庆": ("2026-09-30 16:00", 120, "2026-10-08 10:00"),
    "the Saturday after 国庆": ("2026-10-09 16:00", 120, "2026-10-10 10:00"),
}


class Hall:
    """The database's working time, asked from tests that are not asynchronous."""

    def __init__(self, runner: asyncio.Runner, address: str) -> None:
        self.runner = runner
        self.connection = runner.run(asyncpg.connect(address))
        runner.run(bring_in_line(self.connection))

    def asked(self, question: str, *given: object) -> object:
        return self.runner.run(self.connection.fetchval(question, *given))

    def due(self, at: datetime, minutes: int) -> datetime:
        answer = self.asked("SELECT hall.add_working_minutes($1, $2)", at, minutes)
        assert isinstance(answer, datetime)
        return answer.astimezone(BEIJING)


@pytest.fixture
def hall(database: str):  # noqa: ANN201
    with asyncio.Runner() as runner:
        opened = Hall(runner, database)
        yield opened
        runner.run(opened.connection.close())


def beijing(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BEIJING)


def test_deadlines_keep_the_working_days_that_the_state_council_announced(hall: Hall) -> None:
    found = {name: hall.due(beijing(at), minutes) for name, (at, minutes, _) in GOLDEN.items()}
    assert found == {name: beijing(due) for name, (_, _, due) in GOLDEN.items()}


def slow_due(at: datetime, minutes: int) -> datetime:
    """Minute by minute: one counts when it begins within the hours of a working day."""
    while minutes:
        begins = at.astimezone(BEIJING)
        minutes -= OPENS <= begins.hour * 60 + begins.minute < CLOSES and is_workday(begins.date())
        at += timedelta(minutes=1)
    return at


def test_working_time_equals_counting_minute_by_minute(hall: Hall) -> None:
    first = datetime(2025, 1, 1, tzinfo=UTC)

    @given(st.integers(0, 690 * 1440), st.integers(1, 2500))
    def holds(after: int, minutes: int) -> None:
        at = first + timedelta(minutes=after)
        assert hall.due(at, minutes) == slow_due(at, minutes)

    holds()


def test_s6_in_a_year_that_the_calendar_does_not_know_weekdays_work_and_the_deadline_is_provisional(hall: Hall) -> None:
    week = [date(UNKNOWN, 10, 1) + timedelta(days=n) for n in range(7)]
    assert [hall.asked("SELECT hall.works($1)", day) for day in week] == [day.isoweekday() < 6 for day in week]
    assert [
        hall.asked("SELECT hall.calendar_knows($1)", beijing(at))
        for at in ("2026-12-31 23:59", f"{UNKNOWN}-01-01 00:00", "2026-10-01 09:00")
    ] == [True, False, True]


def test_the_year_of_a_deadline_is_the_one_of_beijing(hall: Hall) -> None:
    last = datetime(2026, 12, 31, 15, 59, tzinfo=UTC)
    hall.asked("DELETE FROM hall.calendar_year WHERE year > 2026")
    asked = [hall.asked("SELECT hall.calendar_knows($1)", last + timedelta(minutes=after)) for after in (0, 1)]
    assert asked == [True, False]
