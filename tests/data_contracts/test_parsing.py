"""Text becomes a value only when it says exactly one."""

from datetime import date

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.parsing import parsed
from data_contracts.sources import SOURCES
from tests import make

INVOICES = SOURCES["invoices"]


def cells(**changed: str | None) -> pl.DataFrame:
    text = make.frame("invoices", [make.invoice()]).select(pl.all().cast(pl.String))
    return text.with_columns(pl.lit(value, pl.String).alias(name) for name, value in changed.items())


@given(number=st.integers(-(2**63), 2**63 - 1))
def test_every_int64_is_read_exactly(number: int) -> None:
    assert parsed(INVOICES, cells(net_fen=str(number))).frame["net_fen"].item() == number


@given(text=st.text(max_size=8) | st.from_regex(r"-?[0-9]{1,25}", fullmatch=True))
def test_what_is_read_as_an_integer_says_that_integer(text: str) -> None:
    found = parsed(INVOICES, cells(net_fen=text))
    value = found.frame["net_fen"].item()
    if value is None:
        assert text == "" or found.failed["net_fen"].item()
    else:
        assert int(text) == value
        assert text.isascii()
        assert text.lstrip("-").isdigit()


@given(day=st.dates())
def test_every_day_is_read_exactly(day: date) -> None:
    assert parsed(INVOICES, cells(issued_on=day.isoformat())).frame["issued_on"].item() == day


@given(text=st.text(max_size=12) | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", fullmatch=True))
def test_what_is_read_as_a_day_says_that_day(text: str) -> None:
    found = parsed(INVOICES, cells(issued_on=text))
    value = found.frame["issued_on"].item()
    assert (text == "" or found.failed["issued_on"].item()) if value is None else value.strftime("%Y-%m-%d") in text


def test_an_empty_cell_is_null_and_no_failure() -> None:
    found = parsed(INVOICES, cells(**dict.fromkeys(INVOICES.columns, "")))
    assert found.failed.width == 0
    assert all(column.is_null().all() for column in found.frame.get_columns())
    assert found.frame.schema == INVOICES.types
