"""Repeats: what stays, what goes, and under which rule."""

from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.checking import Checked, checked
from data_contracts.sources import SOURCES, SUPPLIERS
from tests import make


def judged(source: str, records: list[make.Record]) -> tuple[Checked, dict[int, str]]:
    found = checked(SOURCES[source], make.frame(source, records))
    return found, dict(zip(found.quarantined["row"], found.quarantined["rules"], strict=True))


def test_the_first_of_exact_duplicates_stays() -> None:
    found, rules = judged("invoices", [make.invoice()] * 3)
    assert found.good.height == 1
    assert rules == {2: "exact_duplicate", 3: "exact_duplicate"}
    assert found.quarantined["exact_duplicate"].all()


def test_of_a_void_and_a_valid_invoice_the_void_one_stays() -> None:
    for first in (True, False):
        found, rules = judged("invoices", [make.invoice(is_void=first), make.invoice(is_void=not first)])
        assert found.good["is_void"].to_list() == [True]
        assert rules == {(2 if first else 1): "void_valid_conflict"}
        assert not found.quarantined["exact_duplicate"].any()


def test_versions_that_contradict_each_other_all_go() -> None:
    found, rules = judged("invoices", [make.invoice(net_fen=1), make.invoice(net_fen=2)])
    assert found.good.is_empty()
    assert rules == {1: "conflicting_versions", 2: "conflicting_versions"}


def test_void_and_valid_with_a_third_version_all_go() -> None:
    records = [make.invoice(), make.invoice(is_void=True), make.invoice(net_fen=7)]
    assert judged("invoices", records)[1] == dict.fromkeys((1, 2, 3), "conflicting_versions")


def test_a_void_and_a_valid_invoice_may_be_repeated_as_well() -> None:
    records = [make.invoice(), make.invoice(is_void=True), make.invoice(), make.invoice(is_void=True)]
    found, rules = judged("invoices", records)
    assert found.good["is_void"].to_list() == [True]
    assert rules == {1: "void_valid_conflict", 3: "exact_duplicate", 4: "exact_duplicate"}


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_fact_from_an_authority_and_a_bank_counts_once_in_any_order(name: str) -> None:
    both = [make.MAKERS[name](supplier=supplier) for supplier in ("authority", "bank")]
    for records in (both, both[::-1]):
        found, rules = judged(name, records)
        assert found.good["supplier"].to_list() == ["authority"]
        assert list(rules.values()) == ["same_from_another"]
        assert found.quarantined["exact_duplicate"].all()


def test_an_authority_and_a_bank_that_differ_contradict_each_other() -> None:
    records = [make.debt(supplier="authority"), make.debt(supplier="bank", overdue_days=9)]
    assert judged("debts", records)[1] == dict.fromkeys((1, 2), "conflicting_versions")


@pytest.mark.parametrize("name", SOURCES)
def test_an_applicants_row_throws_out_no_other(name: str) -> None:
    of_others = make.MAKERS[name](supplier="authority")
    changed = (
        {"net_fen": 1, "gross_fen": 1, "tax_fen": 0} if name == "invoices" else {"known_on": of_others["known_on"]}
    )
    for own in (of_others, of_others | changed):
        found, rules = judged(name, [own | {"supplier": "applicant"}, of_others])
        assert rules == {}
        assert found.good.height == 2


def test_an_applicant_that_contradicts_itself_is_not_believed() -> None:
    own = [make.public_record(supplier="applicant", removed_on=day) for day in (None, date(2024, 2, 1))]
    found, rules = judged("public_records", [make.public_record(), *own])
    assert found.good["supplier"].to_list() == ["authority"]
    assert rules == dict.fromkeys((2, 3), "conflicting_versions")


def test_a_correction_known_later_is_no_conflict() -> None:
    records = [make.invoice(), make.invoice(net_fen=7, known_on=date(2024, 7, 1))]
    assert judged("invoices", records)[1] == {}


def test_a_fact_and_its_correction_may_each_be_repeated() -> None:
    later = make.invoice(net_fen=7, known_on=date(2024, 7, 1))
    found, rules = judged("invoices", [make.invoice(), later, make.invoice(), later])
    assert rules == dict.fromkeys((3, 4), "exact_duplicate")
    assert found.good.height == 2


def test_null_equals_null_in_a_key() -> None:
    records = [make.feed(direction=None, row_count=0), make.feed(direction=None, row_count=1)]
    assert judged("feeds", records)[1] == dict.fromkeys((1, 2), "conflicting_versions")
    assert judged("feeds", [make.feed(), make.feed()])[1] == {2: "exact_duplicate"}


def test_null_equals_null_in_the_content() -> None:
    records = [make.enterprise(employees=None), make.enterprise(employees=None), make.enterprise(employees=0)]
    found, rules = judged("enterprises", records)
    assert rules == {1: "conflicting_versions", 2: "exact_duplicate", 3: "conflicting_versions"}
    assert found.good.is_empty()


def test_a_row_that_breaks_a_rule_conflicts_with_nobody() -> None:
    found, rules = judged("invoices", [make.invoice(gross_fen=1), make.invoice(), make.invoice(gross_fen=1)])
    assert found.good.height == 1
    assert rules == dict.fromkeys((1, 3), "gross_not_net_plus_tax")


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_keeps_the_first_of_equal_rows(name: str) -> None:
    record = make.MAKERS[name]()
    found, rules = judged(name, [record, record])
    assert found.good.height == 1
    assert rules == {2: "exact_duplicate"}


Row = tuple[str, int, bool, str]


def expected(rows: list[Row]) -> dict[int, str]:
    """The definition, said slowly: rows of (invoice_no, net_fen, is_void, supplier)."""
    answer: dict[int, str] = {}
    seen: dict[Row, int] = {}
    for number, row in enumerate(rows, start=1):
        if row in seen:
            answer[number] = "exact_duplicate"
        else:
            seen[row] = number
    for row in list(seen):
        if row[3] == "bank" and (*row[:3], "authority") in seen:
            answer[seen.pop(row)] = "same_from_another"
    for row, number in seen.items():
        heard = [other for other in seen if (other[3] == "applicant") == (row[3] == "applicant")]
        rivals = [other for other in heard if other[0] == row[0] and other != row]
        if len(rivals) == 1 and rivals[0][1] == row[1]:
            if not row[2]:
                answer[number] = "void_valid_conflict"
        elif rivals:
            answer[number] = "conflicting_versions"
    return answer


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["AAAAAAAA", "BBBBBBBB"]), st.integers(1, 2), st.booleans(), st.sampled_from(SUPPLIERS)
        ),
        max_size=9,
    )
)
def test_repeats_are_found_as_defined(rows: list[Row]) -> None:
    records = [
        make.invoice(invoice_no=number, net_fen=net, is_void=void, supplier=supplier)
        for number, net, void, supplier in rows
    ]
    found, rules = judged("invoices", records)
    assert rules == expected(rows)
    assert found.good.height + len(rules) == len(rows) == found.read


def test_the_order_of_the_good_rows_is_that_of_the_file() -> None:
    records = [make.invoice(invoice_no=f"{number:08d}") for number in (5, 3, 5, 9, 1)]
    found, _ = judged("invoices", records)
    assert found.good["invoice_no"].cast(pl.Int64).to_list() == [5, 3, 9, 1]
