"""Completeness marks count and sum what the contract says they do."""

from datetime import date

import pytest

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


def test_every_row_of_a_key_known_by_the_marks_day_counts_and_the_latest_is_summed() -> None:
    late = [make.debt(balance_fen=1), make.debt(balance_fen=2, known_on=date(2024, 7, 31))]
    later = make.debt(balance_fen=3, known_on=date(2024, 8, 1))
    assert counted("debts", *late, later) == [(2, 2)]
    assert counted("debts", *late, *late) == [(2, 2)]


def test_an_event_outside_the_period_does_not_count() -> None:
    for issued_on, known_on, count in (
        (date(2023, 12, 31), date(2024, 1, 2), 0),
        (date(2024, 1, 1), date(2024, 1, 2), 1),
        (date(2024, 6, 30), date(2024, 7, 31), 1),
        (date(2024, 7, 1), date(2024, 7, 1), 0),
    ):
        invoice = make.invoice(issued_on=issued_on, known_on=known_on)
        assert counted("invoices", invoice)[1][0] == count


@pytest.mark.parametrize(("known_on", "count"), [(date(2023, 12, 31), 0), (date(2024, 1, 1), 1), (date(2024, 8, 1), 0)])
def test_what_is_reported_after_its_period_counts_until_it_is_known(known_on: date, count: int) -> None:
    late = make.tax_filing(
        period_from=date(2023, 7, 1), period_to=date(2023, 9, 30), known_on=known_on, late_days=30, tax_fen=9
    )
    assert counted("tax_filings", late) == [(count, 9 * count)]
    month = make.social_insurance(month=date(2023, 11, 1), known_on=known_on, base_fen=5)
    assert counted("social_insurance", month) == [(count, 5 * count)]


@pytest.mark.parametrize(
    ("listed_on", "removed_on", "count"),
    [
        (date(2019, 5, 1), None, 1),
        (date(2019, 5, 1), date(2024, 1, 1), 1),
        (date(2019, 5, 1), date(2023, 12, 31), 0),
        (date(2024, 3, 1), date(2024, 3, 1), 1),
        (date(2024, 6, 30), None, 1),
        (date(2024, 7, 1), None, 0),
    ],
)
def test_a_record_counts_in_every_period_it_stood_in(listed_on: date, removed_on: date | None, count: int) -> None:
    known_on = listed_on if removed_on is None else removed_on
    record = make.public_record(listed_on=listed_on, removed_on=removed_on, known_on=known_on)
    assert counted("public_records", record) == [(count, None)]


def test_a_removal_known_later_does_not_take_a_record_out_of_an_earlier_mark() -> None:
    listed = make.public_record(listed_on=date(2019, 5, 1))
    removed = listed | {"removed_on": date(2023, 6, 1), "known_on": date(2024, 8, 1)}
    assert counted("public_records", listed, removed) == [(1, None)]
    assert counted("public_records", listed, removed | {"known_on": date(2024, 7, 31)}) == [(0, None)]


def test_a_debt_counts_by_the_report_in_force_until_it_is_closed() -> None:
    old = make.debt(as_of=date(2021, 6, 30), opened_on=date(2020, 1, 1), balance_fen=7)
    older = old | {"as_of": date(2021, 3, 31), "known_on": date(2021, 3, 31), "balance_fen": 100}
    assert counted("debts", older, old) == [(1, 7)]
    again = old | {"as_of": date(2024, 1, 1), "known_on": date(2024, 1, 1), "balance_fen": 20}
    assert counted("debts", older, old, again) == [(1, 20)]
    assert counted("debts", older, old, again | {"as_of": date(2024, 1, 2), "known_on": date(2024, 1, 2)}) == [(2, 27)]
    closed = {"as_of": date(2023, 12, 31), "known_on": date(2023, 12, 31), "closed_on": date(2023, 12, 1)}
    assert counted("debts", older, old, old | closed) == [(0, 0)]


def test_a_filing_counts_in_every_period_in_which_its_tax_was_owed() -> None:
    year = {"period_from": date(2019, 10, 1), "period_to": date(2019, 12, 31), "known_on": date(2020, 1, 15)}
    owed = make.tax_filing(**year, paid_on=None, arrears_fen=5, tax_fen=9)
    paid = owed | {"known_on": date(2024, 2, 1), "paid_on": date(2024, 1, 31), "arrears_fen": 0}
    assert counted("tax_filings", owed) == [(1, 9)]
    assert counted("tax_filings", owed, paid) == [(2, 9)]
    assert counted("tax_filings", owed, paid | {"known_on": date(2023, 12, 31), "paid_on": date(2023, 12, 1)}) == [
        (0, 0)
    ]


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
