"""Completeness marks count and sum what the contract says they do."""

from datetime import date

from data_contracts.marks import Period, marks
from data_contracts.sources import SOURCES
from data_contracts.uscc import made_up_code
from tests import make

PERIOD = Period(date(2024, 1, 1), date(2024, 6, 30), date(2024, 7, 31))


def counted(source: str, *records: make.Record) -> list[tuple[int, int | None]]:
    rows = make.frame(source, records)
    enterprises = make.frame("enterprises", [make.enterprise()])["uscc"]
    return marks(SOURCES[source], rows, enterprises, PERIOD, "authority").select("row_count", "total_fen").rows()


def test_exact_repeats_count_once_and_each_direction_has_a_mark() -> None:
    assert counted("invoices", make.invoice(net_fen=100), make.invoice(net_fen=100)) == [(0, 0), (1, 113)]


def test_the_latest_row_of_a_key_known_by_the_marks_day_counts() -> None:
    late = [make.debt(balance_fen=1), make.debt(balance_fen=2, known_on=date(2024, 7, 31))]
    later = make.debt(balance_fen=3, known_on=date(2024, 8, 1))
    assert counted("debts", *late, later) == [(1, 2)]


def test_a_row_outside_the_period_does_not_count() -> None:
    assert counted("public_records", make.public_record(listed_on=date(2023, 12, 31))) == [(0, None)]
    assert counted("public_records", make.public_record(listed_on=date(2024, 1, 1))) == [(1, None)]


def test_a_source_without_a_day_counts_all_rows() -> None:
    assert counted("taxpayer_ratings", make.taxpayer_rating(year=2001)) == [(1, None)]


def test_void_invoices_are_summed() -> None:
    assert counted("invoices", make.invoice(net_fen=100, is_void=True))[1] == (1, 113)


def test_marks_are_made_for_the_enterprises_asked_for_and_keep_the_contract() -> None:
    found = make.complete(
        enterprises=[make.enterprise(1), make.enterprise(2)], invoices=[make.invoice(uscc=made_up_code(2))]
    )
    assert found.feeds.height == 2 * 12
    own = found.feeds.filter(uscc=made_up_code(2), source="invoices", direction="out")
    assert own.select("row_count", "total_fen").rows() == [(1, 1_130_000)]
