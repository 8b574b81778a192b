"""Good rows, quarantined rows, doubts and warnings."""

from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.checking import checked, checked_text, empty, no_broken_lines, sources_of
from data_contracts.errors import ContractError
from data_contracts.sources import SOURCES, Sources
from data_contracts.uscc import CodeState, code_state, made_up_code
from tests import make
from tests.data_contracts.faults import faults

INVOICES = SOURCES["invoices"]
LEGACY = "91350211M000100Y47"


def test_every_maker_keeps_its_contract() -> None:
    found, reports = sources_of(make.frames(**{name: [maker()] for name, maker in make.MAKERS.items()}))
    assert {name: report.quarantined.height for name, report in reports.items()} == dict.fromkeys(SOURCES, 0)
    assert {name: getattr(found, name).height for name in SOURCES} == dict.fromkeys(SOURCES, 1)


def test_a_row_carries_every_rule_it_broke() -> None:
    record = make.invoice(direction="up", gross_fen=5, counterparty_id=None, red_of="00000009")
    found = checked(INVOICES, make.frame("invoices", [record]))
    assert set(found.quarantined["rules"].item().split("; ")) == {
        "direction_not_listed",
        "counterparty_id_null",
        "gross_not_net_plus_tax",
        "red_of_on_positive",
    }


def test_row_numbers_may_be_handed_in() -> None:
    frame = make.frame("invoices", [make.invoice(), make.invoice(gross_fen=1)])
    assert checked(INVOICES, frame, pl.Series([7, 42])).quarantined["row"].to_list() == [42]


@given(numbers=st.lists(st.integers(0, 200), max_size=12), source=st.sampled_from(list(SOURCES.values())))
def test_good_and_quarantined_are_what_was_read(numbers: list[int], source: object) -> None:
    named = next(each for each in SOURCES.values() if each is source)
    records = [make.MAKERS[named.name](), *(fault.record for fault in faults(named) if not fault.cells)]
    frame = make.frame(named, [records[number % len(records)] for number in numbers])
    found = checked(named, frame)
    assert found.read == frame.height == found.good.height + found.quarantined.height
    rest = set(range(1, frame.height + 1)) - set(found.quarantined["row"])
    assert found.good.equals(frame[[row - 1 for row in sorted(rest)]])


def test_a_field_of_ten_million_characters_is_quarantined_whole_and_named_in_no_message() -> None:
    long = "长" * 10_000_000
    for column in ("counterparty_id", "direction"):
        found = checked(INVOICES, make.frame("invoices", [make.invoice(**{column: long})]))
        assert found.quarantined[column].item() == long
        assert len(found.quarantined["rules"].item()) < 200


def test_a_column_name_of_ten_million_characters_does_not_fill_the_message() -> None:
    frame = make.frame("invoices", [make.invoice()]).with_columns(pl.lit(1).alias("x" * 10_000_000))
    with pytest.raises(ContractError) as refused:
        checked(INVOICES, frame)
    assert len(str(refused.value)) < 500


def test_all_frames_are_refused_at_once() -> None:
    frames = make.frames(invoices=[make.invoice()], debts=[make.debt()])
    frames["invoices"] = frames["invoices"].drop("net_fen")
    frames["debts"] = frames["debts"].with_columns(pl.col("overdue_days").cast(pl.Int32))
    frames["invoice"] = frames["invoices"]
    with pytest.raises(ContractError) as refused:
        sources_of(frames)
    assert refused.value.problems == (
        "'invoice' is not a source",
        "invoices: column net_fen is missing",
        "debts.overdue_days: expected integer (int64) Int64, found Int32",
    )


def test_a_source_that_is_not_given_is_empty_and_typed() -> None:
    found = make.sources()
    for name, source in SOURCES.items():
        if name != "enterprises":
            assert getattr(found, name).equals(empty(source))
            assert getattr(found, name).schema == source.types


def test_cells_must_be_text_columns_of_the_contract() -> None:
    with pytest.raises(ContractError, match="red_of is missing"):
        checked_text(INVOICES, pl.DataFrame({"uscc": ["x"]}))


# ------------------------------------------------------------------------------------------------------------- warnings


def test_a_legacy_code_is_a_warning_and_no_refusal() -> None:
    assert code_state(LEGACY) is CodeState.LEGACY
    _, reports = sources_of(make.frames(enterprises=[make.enterprise() | {"uscc": LEGACY}]))
    assert reports["enterprises"].good.height == 1
    assert reports["enterprises"].warnings[0].startswith("1 rows with 1 credit codes of the Fujian pilot")


def test_rows_of_unknown_enterprises_stay_good_and_are_counted() -> None:
    stranger = made_up_code(99)
    records = make.numbered([make.invoice(), make.invoice(uscc=stranger), make.invoice(uscc=stranger)])
    _, reports = sources_of(make.frames(invoices=records))
    assert reports["invoices"].good.height == 3
    assert reports["invoices"].warnings == (
        "2 rows are about 1 credit codes that no good row of enterprises has",
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- doubts


def doubts(source: str, *records: make.Record) -> list[tuple[object, ...]]:
    frames = make.frames(**{source: list(records)})
    return sources_of(frames)[0].doubts.rows()


def test_a_quarantined_row_puts_its_feed_in_doubt_from_the_day_it_was_known() -> None:
    assert doubts("debts", make.debt(overdue_days=-1)) == [(make.USCC, "debts", None, date(2024, 6, 30))]


def test_an_exact_duplicate_puts_nothing_in_doubt() -> None:
    assert doubts("debts", make.debt(), make.debt()) == []


def test_contradicting_and_void_rows_put_the_feed_in_doubt() -> None:
    assert doubts("invoices", make.invoice(), make.invoice(is_void=True)) == [
        (make.USCC, "invoices", "out", date(2024, 6, 10))
    ]
    assert len(doubts("debts", make.debt(), make.debt(balance_fen=1))) == 1


def test_an_invoice_without_direction_puts_both_feeds_in_doubt() -> None:
    found = doubts("invoices", make.invoice(direction="sideways"))
    assert [row[2] for row in found] == ["in", "out"]


def test_a_day_that_cannot_be_read_counts_as_always() -> None:
    assert doubts("debts", make.debt(known_on=None)) == [(make.USCC, "debts", None, None)]
    assert doubts("debts", make.debt(known_on=date(1900, 1, 1))) == [(make.USCC, "debts", None, None)]


def test_d4_a_day_before_what_it_tells_of_casts_its_doubt_from_then_on() -> None:
    """Not on days before it: a mistake that is made next year changes no decision of today."""
    early = date(2024, 1, 1)
    assert doubts("invoices", make.invoice(known_on=early)) == [(make.USCC, "invoices", "out", early)]
    mistyped = make.tax_filing(paid_on=date(2031, 1, 1))
    assert doubts("tax_filings", mistyped) == [(make.USCC, "tax_filings", None, mistyped["known_on"])]


def test_nobody_is_put_in_doubt_by_a_code_that_cannot_be_read() -> None:
    assert doubts("debts", make.debt(uscc="91350211000000019X"), make.debt(uscc=None)) == []


def test_a_broken_line_puts_the_first_credit_code_in_it_in_doubt() -> None:
    line = f"1,2,{'9' * 18},{make.USCC},{made_up_code(7)}"
    broken = pl.DataFrame({"row": [3], "rule": ["stray_quote"], "line": [line]}, schema=no_broken_lines().schema)
    text = make.frame("debts", [make.debt()]).select(pl.all().cast(pl.String))
    found = checked_text(SOURCES["debts"], text, pl.Series([1]), broken)
    assert found.read == 2
    assert found.quarantined.select("row", "rules", "line").rows() == [(3, "stray_quote", line)]
    from data_contracts.checking import assembled

    sources, _ = assembled({"debts": found})
    assert sources.doubts.rows() == [(make.USCC, "debts", None, None)]


def test_sources_name_every_source() -> None:
    assert set(Sources.__dataclass_fields__) == {*SOURCES, "doubts"}
