from datetime import date
from typing import Any

import polars as pl
import pytest

from data_contracts.marks import Period, marks
from data_contracts.sources import SOURCES, Sources
from scoring.features import features, taken_at_their_word
from scoring.feeds import FEEDS
from tests import make

AS_OF = date(2025, 1, 20)


def state(sources: Sources, feed: str, as_of: date = AS_OF) -> str:
    return features(sources, as_of)[feed].item()


def invoice_mark(**changes: Any) -> dict[str, Any]:
    return make.feed(**{"source": "invoices", "direction": "out", "row_count": 1, "total_fen": 1_130_000, **changes})


def test_a_feed_without_a_mark_is_missing() -> None:
    found = features(make.sources(), AS_OF)
    assert {found[feed.name].item() for feed in FEEDS} == {"missing"}


def test_marks_that_agree_with_the_rows_make_every_feed_complete() -> None:
    found = features(make.complete(invoices=[make.invoice()], tax_filings=[make.tax_filing()]), AS_OF)
    assert {found[feed.name].item() for feed in FEEDS} == {"complete"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "complete"),
        ({"total_fen": None}, "complete"),
        ({"row_count": 2}, "incomplete"),
        ({"total_fen": 1_130_001}, "incomplete"),
        ({"period_from": date(2024, 3, 1)}, "incomplete"),
        ({"period_to": date(2024, 11, 30), "known_on": date(2024, 12, 1)}, "incomplete"),
        ({"known_on": date(2025, 1, 21), "period_to": date(2024, 12, 31)}, "missing"),
        ({"direction": "in", "row_count": 0, "total_fen": 0}, "missing"),
    ],
)
def test_a_mark_must_agree_and_leave_no_gap(changes: dict[str, Any], expected: str) -> None:
    sources = make.sources(invoices=[make.invoice()], feeds=[invoice_mark(**changes)])
    assert state(sources, "invoices_out_feed") == expected


def test_d3_the_marks_of_filings_cover_the_whole_window_in_which_taxes_count() -> None:
    """A refund of the window's first quarter cannot be kept back with its mark and leave the feed complete."""
    day = date(2026, 7, 10)  # the last quarter due ends in March, so the 24 months begin in April 2024
    first_quarter = date(2024, 6, 30)
    filings = [
        make.tax_filing(
            tax_kind="cit", period_from=date(2024, 4, 1), period_to=first_quarter, tax_fen=0, refund_fen=500_000,
            known_on=date(2024, 7, 10), paid_on=None,
        ),
        make.tax_filing(
            tax_kind="cit", period_from=date(2025, 1, 1), period_to=date(2025, 3, 31), tax_fen=1_100_000,
            known_on=date(2025, 4, 10), paid_on=date(2025, 4, 8),
        ),
    ]  # fmt: skip
    whole = make.checked_sources(make.marked(make.frames(tax_filings=filings), until=date(2026, 7, 1)))
    kept_back = make.checked_sources(
        make.marked(make.frames(tax_filings=filings[1:]), since=date(2024, 7, 1), until=date(2026, 7, 1))
    )
    assert state(whole, "tax_filings_feed", day) == "complete"
    assert features(whole, day)["tax_paid_24m_fen"].item() == 600_000
    assert state(kept_back, "tax_filings_feed", day) == "incomplete"


def test_several_marks_may_follow_one_another_but_not_leave_a_day_out() -> None:
    first = invoice_mark(period_to=date(2024, 6, 30))
    second = invoice_mark(period_from=date(2024, 7, 1), row_count=0, total_fen=0)
    late = invoice_mark(period_from=date(2024, 7, 2), row_count=0, total_fen=0)
    sources = make.sources(invoices=[make.invoice()], feeds=[first, second])
    assert state(sources, "invoices_out_feed") == "complete"
    gap = make.sources(invoices=[make.invoice()], feeds=[first, late])
    assert state(gap, "invoices_out_feed") == "incomplete"


def test_overlapping_marks_each_count_their_own_rows() -> None:
    year = invoice_mark()
    month = invoice_mark(period_from=date(2024, 6, 1), period_to=date(2024, 6, 30))
    wrong = invoice_mark(period_from=date(2024, 6, 1), period_to=date(2024, 6, 30), row_count=0, total_fen=0)
    assert state(make.sources(invoices=[make.invoice()], feeds=[year, month]), "invoices_out_feed") == "complete"
    assert state(make.sources(invoices=[make.invoice()], feeds=[year, wrong]), "invoices_out_feed") == "incomplete"


def test_overlapping_marks_of_filings_each_count_their_own_rows() -> None:
    filings = make.returns(2022, date(2024, 9, 30))
    whole = make.complete(tax_filings=filings)
    year = make.feed(
        source="tax_filings", period_from=date(2024, 1, 1), period_to=date(2024, 9, 30), row_count=3, total_fen=0
    )
    # The return of the quarter before was filed in January, the last one in October.
    for count, expected in ((4, "complete"), (3, "incomplete"), (11, "incomplete")):
        more = make.frame("feeds", [year | {"row_count": count}])
        both = Sources(**{**vars(whole), "feeds": pl.concat([whole.feeds, more])})
        assert state(both, "tax_filings_feed") == expected


def test_a_return_filed_after_the_mark_of_its_quarter_is_in_the_mark_of_the_next() -> None:
    filings = make.returns(2022, date(2024, 6, 30))
    late = make.tax_filing(
        period_from=date(2024, 7, 1), period_to=date(2024, 9, 30), known_on=date(2024, 11, 5), late_days=20
    )
    whole = make.complete(tax_filings=[*filings, late])
    quarters = [
        Period(date(2022, 1, 1), date(2024, 9, 30), date(2024, 10, 5)),
        Period(date(2024, 10, 1), date(2024, 12, 31), date(2025, 1, 5)),
    ]
    told = [
        marks(SOURCES["tax_filings"], whole.tax_filings, whole.enterprises["uscc"], one, "authority")
        for one in quarters
    ]
    others = whole.feeds.filter(pl.col("source") != "tax_filings")
    for rows, expected in ((whole.tax_filings, "complete"), (whole.tax_filings.filter(late_days=0), "incomplete")):
        found = Sources(**{**vars(whole), "tax_filings": rows, "feeds": pl.concat([others, *told])})
        assert state(found, "tax_filings_feed") == expected


def test_a_mark_speaks_of_what_was_known_when_it_was_made() -> None:
    later = make.invoice(is_void=True, known_on=date(2025, 1, 5))
    sources = make.sources(invoices=[make.invoice(), later], feeds=[invoice_mark(known_on=date(2024, 12, 31))])
    assert state(sources, "invoices_out_feed") == "complete"
    assert features(sources, AS_OF)["sales_12m_fen"].item() == 0


def test_a_later_mark_of_the_same_period_replaces_the_earlier() -> None:
    wrong = invoice_mark(row_count=7)
    right = invoice_mark(known_on=date(2025, 1, 3))
    assert state(make.sources(invoices=[make.invoice()], feeds=[wrong, right]), "invoices_out_feed") == "complete"


def test_a_quarantined_row_puts_its_feed_in_doubt_from_its_day_on() -> None:
    frames = make.frames(invoices=[make.invoice()], feeds=[invoice_mark()])
    whole = make.checked_sources(frames)
    doubt = pl.DataFrame(
        {"uscc": [make.USCC], "source": ["invoices"], "direction": ["out"], "known_on": [date(2025, 1, 10)]}
    )
    doubted = Sources(**{**vars(whole), "doubts": doubt})
    assert state(doubted, "invoices_out_feed") == "incomplete"
    assert state(doubted, "invoices_out_feed", date(2025, 1, 9)) == "complete"


def test_a_firm_younger_than_what_is_due_needs_no_more_than_a_mark() -> None:
    young = make.enterprise(established_on=date(2025, 1, 2), known_on=date(2025, 1, 2), zone_entered_on=None)
    mark = make.feed(source="tax_filings", total_fen=0)
    assert state(make.sources(enterprises=[young], feeds=[mark]), "tax_filings_feed") == "complete"
    assert state(make.sources(enterprises=[young]), "tax_filings_feed") == "missing"


def test_what_an_incomplete_feed_cannot_tell_is_null_and_what_it_shows_stands_beside_it() -> None:
    void = make.invoice(invoice_no="00000002", is_void=True)
    sources = make.sources(invoices=[make.invoice(), void])
    found = features(sources, AS_OF)
    assert found["cancelled_share_12m_bp"].item() is None
    assert found["cancelled_share_12m_bp_seen"].item() == 5_000
    clean = taken_at_their_word(found)
    assert clean["cancelled_share_12m_bp"].item() == 5_000
    assert clean["invoices_out_feed"].item() == "complete"
