"""One maker a record, valid by default: a test names only what it is about.

    make.sources(invoices=make.numbered([make.invoice(net_fen=5), make.invoice(net_fen=-5)]))

Makers give plain dicts; `frame` types them; `sources` checks them and asserts that no row was quarantined;
`marked` adds the completeness marks with which every source given reconciles.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from data_contracts.checking import sources_of
from data_contracts.marks import Period, marks
from data_contracts.sources import SOURCES, Source, Sources
from data_contracts.uscc import made_up_code

Record = dict[str, Any]

USCC = made_up_code(1)
"""The enterprise that every record is about unless told otherwise."""
SINCE = date(2010, 1, 1)
UNTIL = date(2024, 12, 31)
"""The marks cover SINCE to UNTIL unless told otherwise."""
AS_OF = date(2025, 1, 1)
"""A day by which every record made here is known."""


def enterprise(number: int = 1, **changes: Any) -> Record:
    """An enterprise of the zone; `number` gives it a credit code."""
    record = {
        "uscc": made_up_code(number),
        "known_on": date(2015, 6, 1),
        "supplier": "authority",
        "name": f"厦门样例{number}科技有限公司",
        "established_on": date(2015, 6, 1),
        "zone_entered_on": date(2015, 6, 1),
        "industry_code": "I6513",
        "district": "350211",
        "employees": 20,
        "revenue_fen": 500_000_000,
        "total_assets_fen": 300_000_000,
        "taxpayer_type": "general",
        "registration_status": "active",
        "group_id": None,
    }
    return record | changes


def qualification(**changes: Any) -> Record:
    """A national 高新技术企业 certificate."""
    record = {
        "uscc": USCC,
        "known_on": date(2023, 12, 1),
        "supplier": "authority",
        "tag": "hightech",
        "level": "national",
        "granted_on": date(2023, 12, 1),
        "valid_to": date(2026, 11, 30),
    }
    return record | changes


def financial_statement(**changes: Any) -> Record:
    """Audited revenue of the year 2023, as the bank holds it."""
    record = {
        "uscc": USCC,
        "known_on": date(2024, 4, 30),
        "supplier": "bank",
        "period_end": date(2023, 12, 31),
        "item": "revenue",
        "value_fen": 500_000_000,
        "audited": True,
    }
    return record | changes


def social_insurance(**changes: Any) -> Record:
    """Contributions of one month, paid."""
    record = {
        "uscc": USCC,
        "known_on": date(2024, 6, 20),
        "supplier": "authority",
        "month": date(2024, 6, 1),
        "headcount": 20,
        "base_fen": 16_000_000,
        "arrears_fen": 0,
    }
    return record | changes


def innovation_indicator(**changes: Any) -> Record:
    """An indicator reported for 2023."""
    record = {
        "uscc": USCC,
        "known_on": date(2024, 3, 31),
        "supplier": "authority",
        "year": 2023,
        "indicator_id": "rd_expense",
        "value": 40_000_000,
        "unit": "fen",
        "state": "reported",
    }
    return record | changes


def tax_filing(**changes: Any) -> Record:
    """VAT of one quarter, paid in time: three days before it is known unless given."""
    known_on = changes.get("known_on", date(2024, 7, 15))
    record = {
        "uscc": USCC,
        "known_on": known_on,
        "supplier": "authority",
        "period_from": date(2024, 4, 1),
        "period_to": date(2024, 6, 30),
        "tax_kind": "vat",
        "declared_sales_fen": 120_000_000,
        "tax_fen": 3_600_000,
        "refund_fen": 0,
        "paid_on": known_on - timedelta(days=3),
        "late_days": 0,
        "arrears_fen": 0,
    }
    return record | changes


def returns(first_year: int, last: date, **changes: Any) -> list[Record]:
    """VAT returns without sales or tax of every quarter from the first of a year to the one that ends on `last`."""
    found = []
    for quarter in range((last.year - first_year) * 4 + last.month // 3):
        year, month = first_year + quarter // 4, quarter % 4 * 3 + 1
        end = date(year + month // 10, (month + 3) % 12, 1) - timedelta(days=1)
        quiet = {"declared_sales_fen": 0, "tax_fen": 0, "paid_on": end + timedelta(days=10), **changes}
        found.append(
            tax_filing(period_from=date(year, month, 1), period_to=end, known_on=end + timedelta(days=15), **quiet)
        )
    return found


def taxpayer_rating(**changes: Any) -> Record:
    """Grade B for 2023."""
    record = {"uscc": USCC, "known_on": date(2024, 4, 20), "supplier": "authority", "year": 2023, "grade": "B"}
    return record | changes


def invoice(**changes: Any) -> Record:
    """A sale. VAT is 13 % of net_fen, gross_fen the sum and known_on the day of issue unless given."""
    record = {
        "uscc": USCC,
        "known_on": changes.get("issued_on", date(2024, 6, 10)),
        "supplier": "authority",
        "direction": "out",
        "invoice_no": "00000001",
        "counterparty_id": "B00001",
        "issued_on": date(2024, 6, 10),
        "net_fen": 1_000_000,
        "is_void": False,
        "red_of": None,
    } | changes
    record.setdefault("tax_fen", record["net_fen"] * 13 // 100)
    record.setdefault("gross_fen", record["net_fen"] + record["tax_fen"])
    return record


def debt(**changes: Any) -> Record:
    """An unsecured line half drawn, never overdue."""
    record = {
        "uscc": USCC,
        "known_on": changes.get("as_of", date(2024, 6, 30)),
        "supplier": "bank",
        "lender_id": "bank-1",
        "debt_id": "line-1",
        "as_of": date(2024, 6, 30),
        "kind": "unsecured",
        "balance_fen": 50_000_000,
        "limit_fen": 100_000_000,
        "overdue_days": 0,
        "five_class": "normal",
        "opened_on": date(2023, 3, 1),
        "closed_on": None,
    }
    return record | changes


def public_record(**changes: Any) -> Record:
    """An administrative penalty that stands."""
    record = {
        "uscc": USCC,
        "known_on": changes.get("listed_on", date(2024, 2, 1)),
        "supplier": "authority",
        "kind": "administrative_penalty",
        "listed_on": date(2024, 2, 1),
        "removed_on": None,
    }
    return record | changes


def loan_outcome(**changes: Any) -> Record:
    """A loan of twelve months, watched to its end, not defaulted."""
    record = {
        "uscc": USCC,
        "known_on": date(2024, 6, 1),
        "supplier": "bank",
        "lender_id": "bank-1",
        "loan_id": "loan-1",
        "opened_on": date(2023, 6, 1),
        "term_months": 12,
        "amount_fen": 100_000_000,
        "defaulted": False,
        "defaulted_on": None,
        "observed_until": date(2024, 6, 1),
        "loss_fen": None,
    }
    return record | changes


def feed(**changes: Any) -> Record:
    """A mark: no public records in the period."""
    record = {
        "uscc": USCC,
        "known_on": UNTIL,
        "supplier": "authority",
        "source": "public_records",
        "direction": None,
        "period_from": SINCE,
        "period_to": UNTIL,
        "row_count": 0,
        "total_fen": None,
    }
    return record | changes


MAKERS = {
    "enterprises": enterprise,
    "qualifications": qualification,
    "financial_statements": financial_statement,
    "social_insurance": social_insurance,
    "innovation_indicators": innovation_indicator,
    "tax_filings": tax_filing,
    "taxpayer_ratings": taxpayer_rating,
    "invoices": invoice,
    "debts": debt,
    "public_records": public_record,
    "loan_outcomes": loan_outcome,
    "feeds": feed,
}
"""The maker of each source's record."""


def numbered(records: Iterable[Record]) -> list[Record]:
    """Invoices with the numbers 00000001, 00000002, … in their order."""
    return [record | {"invoice_no": f"{number:08d}"} for number, record in enumerate(records, start=1)]


def frame(source: str | Source, records: Sequence[Record]) -> pl.DataFrame:
    """Records as a frame with the columns and types of the source's contract; it is not checked."""
    contract = SOURCES[source] if isinstance(source, str) else source
    return pl.DataFrame(records, schema=contract.types)


def frames(**records: Sequence[Record]) -> dict[str, pl.DataFrame]:
    """Frames by source name, `enterprises` being one default enterprise unless given."""
    given = {"enterprises": [enterprise()], **records}
    return {name: frame(name, rows) for name, rows in given.items()}


def sources(**records: Sequence[Record]) -> Sources:
    """Checked sources of the records given, without completeness marks unless `feeds` are given."""
    return checked_sources(frames(**records))


def complete(**records: Sequence[Record]) -> Sources:
    """Checked sources in which all eleven feeds of every enterprise are complete: one not given is a clean record."""
    everything = {name: records.get(name, []) for name in SOURCES if name not in {"enterprises", "feeds"}}
    return checked_sources(marked(frames(**(records | everything))))


def checked_sources(given: Mapping[str, pl.DataFrame]) -> Sources:
    """Sources of the frames; a quarantined row fails the test."""
    found, reports = sources_of(given)
    for name, report in reports.items():
        assert report.quarantined.is_empty(), f"{name}: {report.quarantined['rules'].to_list()}"
    return found


def marked(
    given: Mapping[str, pl.DataFrame], *, since: date = SINCE, until: date | None = None
) -> dict[str, pl.DataFrame]:
    """The frames with `feeds` made anew, so that every source given reconciles for every enterprise.

    Args:
        given: frames by source name; an empty one says "delivered, and there was nothing".
        since: first day the marks cover.
        until: last day they cover and the day they are known on; null: the last day of 2024, or the latest day on
            which a fact became known if that is later.
    """
    facts = {name: rows for name, rows in given.items() if name != "feeds"}
    if until is None:
        known = [rows["known_on"].max() for name, rows in facts.items() if name != "loan_outcomes"]
        until = max([UNTIL, *(day for day in known if isinstance(day, date))])
    enterprises = facts["enterprises"]["uscc"].unique(maintain_order=True)
    period = Period(since, until, until)
    made = [marks(SOURCES[name], rows, enterprises, period, "authority") for name, rows in facts.items()]
    return {**facts, "feeds": pl.concat(made)}
