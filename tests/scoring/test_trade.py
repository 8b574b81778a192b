"""The invoice features against a plain reading of their definitions, one firm and one loop at a time."""

from collections import defaultdict
from datetime import date
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.calendar import first_day, month_number
from scoring.features import features
from tests import make

AS_OF = date(2025, 1, 20)
LAST = month_number(AS_OF) - 1
WEEK = date(2024, 6, 10)
SALES = (
    *(f"sales_{months}m_fen" for months in (3, 6, 12, 24, 36)),
    "weaker_half_12m_fen",
    "weakest_quarter_12m_fen",
    "weaker_year_24m_fen",
    *(f"active_months_{months}m" for months in (12, 24, 36)),
    "months_since_sale",
    "buyers_12m",
    "sales_less_top1_12m_fen",
    "sales_less_top5_12m_fen",
    "repeat_sales_12m_fen",
    "cancelled_share_12m_bp_seen",
)


def by_hand(records: list[dict[str, Any]]) -> dict[str, int]:
    """The definitions of the catalogue, read literally."""
    age = {id(one): LAST - month_number(one["issued_on"]) for one in records}
    positive = [one for one in records if one["net_fen"] > 0 and not one["is_void"]]
    negative = [one for one in records if one["net_fen"] < 0 and not one["is_void"]]
    left = {id(one): one["net_fen"] for one in positive}
    loose: list[tuple[int, str, int]] = []
    named: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for red in negative:
        if red["red_of"] is None:
            loose.append((age[id(red)], red["counterparty_id"], -red["net_fen"]))
        else:
            named[red["red_of"], red["counterparty_id"]].append(red)
    for (number, partner), reds in named.items():
        rest = -sum(red["net_fen"] for red in reds)
        same = [one for one in positive if (one["invoice_no"], one["counterparty_id"]) == (number, partner)]
        for one in sorted(same, key=lambda one: (age[id(one)], one["net_fen"])):
            taken = min(rest, one["net_fen"])
            left[id(one)] -= taken
            rest -= taken
        for red in sorted(reds, key=lambda red: age[id(red)]):  # the oldest are used up first, so the latest exceed
            exceeds = min(rest, -red["net_fen"])
            rest -= exceeds
            loose.append((age[id(red)], partner, exceeds))
    month = [sum(left[id(one)] for one in positive if age[id(one)] == back) for back in range(36)]
    unlinked = {window: sum(amount for back, _, amount in loose if back < window) for window in (3, 6, 12, 24, 36)}
    active = [month[back] - sum(amount for when, _, amount in loose if when == back) > 0 for back in range(36)]

    def weakest(parts: int, length: int) -> int:
        return min(sum(month[part * length : (part + 1) * length]) for part in range(parts))

    def of_partner(partner: str, start: int, stop: int) -> int:
        return sum(
            left[id(one)] for one in positive if one["counterparty_id"] == partner and start <= age[id(one)] < stop
        )

    def red_of_partner(partner: str, start: int, stop: int) -> int:
        return sum(amount for back, whose, amount in loose if whose == partner and start <= back < stop)

    partners = sorted({one["counterparty_id"] for one in positive})
    raw = {one: of_partner(one, 0, 12) for one in partners}
    net = {one: raw[one] - red_of_partner(one, -1, 12) for one in partners}
    prior = {one: of_partner(one, 12, 24) - red_of_partner(one, 12, 24) for one in partners}
    kept = sum(month[:12]) - unlinked[12]

    def less_top(count: int) -> int:
        top = sum(sorted(raw.values(), reverse=True)[:count])
        return max(0, kept - -(-max(0, 2 * top - kept) // 4))

    recent = [one for one in records if age[id(one)] < 12]
    cancelled = sum(abs(one["net_fen"]) for one in recent if one["net_fen"] < 0 or one["is_void"])
    cancelled -= sum(-one["net_fen"] for one in recent if one["net_fen"] < 0 and one["is_void"])
    whole = cancelled + sum(one["net_fen"] for one in recent if one["net_fen"] > 0 and not one["is_void"])
    return {
        **{f"sales_{window}m_fen": max(0, sum(month[:window]) - unlinked[window]) for window in unlinked},
        "weaker_half_12m_fen": max(0, weakest(2, 6) - unlinked[12]),
        "weakest_quarter_12m_fen": max(0, weakest(4, 3) - unlinked[12]),
        "weaker_year_24m_fen": max(0, weakest(2, 12) - unlinked[24]),
        **{f"active_months_{window}m": sum(active[:window]) for window in (12, 24, 36)},
        "months_since_sale": active.index(True) if any(active) else 36,
        "buyers_12m": sum(amount >= 100_000 for amount in net.values()),
        "sales_less_top1_12m_fen": less_top(1),
        "sales_less_top5_12m_fen": less_top(5),
        "repeat_sales_12m_fen": sum(max(0, net[one]) for one in partners if prior[one] > 0),
        "cancelled_share_12m_bp_seen": min(5_000, cancelled * 10_000 // whole) if whole else 0,
    }


def seen(records: list[dict[str, Any]]) -> dict[str, int]:
    found = features(make.sources(invoices=records), AS_OF)
    return found.select(SALES).row(0, named=True)


@st.composite
def books(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Up to 40 sales of six buyers over four years: void ones, and red letters that name an invoice or none."""
    records = []
    for number in range(draw(st.integers(0, 40))):
        net = draw(st.integers(1, 400_000) | st.just(0))
        month = LAST + 1 - draw(st.integers(0, 47))
        record = make.invoice(
            invoice_no=f"{number:08d}",
            counterparty_id=f"B{draw(st.integers(0, 5))}",
            issued_on=first_day(month).replace(day=draw(st.integers(1, 20))),
            net_fen=net,
            is_void=draw(st.integers(0, 5)) == 0,
        )
        if draw(st.integers(0, 3)) == 0:
            of = f"{draw(st.integers(0, 40)):08d}" if draw(st.booleans()) else None
            record = make.invoice(**{**record, "net_fen": -net, "tax_fen": 0, "gross_fen": -net, "red_of": of})
        records.append(record)
    return records


@given(records=books())
def test_features_of_invoices_are_what_their_definitions_say(records: list[dict[str, Any]]) -> None:
    assert seen(records) == by_hand(records)


def test_a_red_letter_lowers_the_month_of_the_invoice_it_names() -> None:
    sale = make.invoice(invoice_no="00000001", issued_on=date(2024, 3, 5), net_fen=900_000)
    red = make.invoice(invoice_no="00000002", issued_on=date(2024, 11, 5), net_fen=-900_000, red_of="00000001")
    other = make.invoice(invoice_no="00000003", issued_on=date(2024, 12, 5), net_fen=500_000)
    found = seen([sale, red, other])
    assert found["sales_12m_fen"] == 500_000
    assert found["sales_3m_fen"] == 500_000
    assert found["active_months_12m"] == 1


def test_what_a_red_letter_exceeds_its_invoice_by_counts_against_every_window() -> None:
    sale = make.invoice(invoice_no="00000001", issued_on=date(2024, 3, 5), net_fen=100_000)
    red = make.invoice(invoice_no="00000002", issued_on=date(2024, 12, 5), net_fen=-300_000, red_of="00000001")
    other = make.invoice(invoice_no="00000003", issued_on=date(2024, 12, 6), net_fen=500_000)
    assert seen([sale, red, other])["sales_3m_fen"] == 300_000


def test_one_more_red_letter_does_not_clear_the_month_of_an_earlier_one() -> None:
    spring, autumn = date(2024, 4, 8), date(2024, 10, 8)
    sale = make.invoice(invoice_no="00000001", issued_on=spring, net_fen=10_000)
    early = make.invoice(invoice_no="00000002", issued_on=spring, net_fen=-10_000, red_of="99999999")
    late = make.invoice(invoice_no="00000003", issued_on=autumn, net_fen=-1, red_of="99999999")
    assert seen([sale, early])["active_months_12m"] == 0
    assert seen([sale, early, late])["active_months_12m"] == 0


@pytest.mark.parametrize("buyer", ["same firm", "same group"])
def test_trade_inside_the_group_is_no_sale(buyer: str) -> None:
    firms = [make.enterprise(1, group_id="G"), make.enterprise(2, group_id="G")]
    partner = firms[0 if buyer == "same firm" else 1]["uscc"]
    sale = make.invoice(counterparty_id=partner, issued_on=WEEK)
    found = features(make.sources(enterprises=firms, invoices=[sale]), AS_OF)
    assert found["sales_36m_fen"].to_list() == [0, 0]
    assert found["buyers_12m"].to_list() == [0, 0]


def test_trade_that_goes_round_is_measured_on_both_sides_of_one_partner() -> None:
    sold = make.invoice(invoice_no="00000001", counterparty_id="P1", net_fen=800_000, issued_on=WEEK)
    elsewhere = make.invoice(invoice_no="00000002", counterparty_id="P2", net_fen=200_000, issued_on=WEEK)
    bought = make.invoice(invoice_no="00000003", counterparty_id="P1", net_fen=300_000, issued_on=WEEK, direction="in")
    found = features(make.complete(invoices=[sold, elsewhere, bought]), AS_OF)
    assert found["round_trade_share_12m_bp"].item() == 3_000


def test_purchases_count_months_and_suppliers() -> None:
    records = [
        make.invoice(direction="in", counterparty_id=f"S{month % 2}", issued_on=date(2024, month, 3), net_fen=60_000)
        for month in (2, 3, 4, 5)
    ]
    found = features(make.sources(invoices=make.numbered(records)), AS_OF)
    assert found.select("purchase_months_12m", "suppliers_12m", "purchases_12m_fen").row(0) == (4, 2, 240_000)


def test_the_current_month_brings_no_sales_yet() -> None:
    found = seen([make.invoice(issued_on=date(2025, 1, 10), net_fen=700_000)])
    assert {name: found[name] for name in ("sales_3m_fen", "active_months_12m", "buyers_12m")} == {
        "sales_3m_fen": 0,
        "active_months_12m": 0,
        "buyers_12m": 0,
    }


def test_shown_figures_of_an_even_year() -> None:
    records = [make.invoice(issued_on=first_day(LAST - back).replace(day=3), net_fen=100_000) for back in range(24)]
    found = features(make.sources(invoices=make.numbered(records)), AS_OF)
    columns = ("sales_growth_12m_bp", "sales_cv_12m_bp", "mean_invoice_fen", "invoices_out_12m", "top1_share_12m_bp")
    assert found.select(columns).row(0) == (0, 0, 100_000, 12, 10_000)
    assert isinstance(found, pl.DataFrame)
