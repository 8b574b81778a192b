"""Every way in which one record can break its contract, generated from the contract itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl
from pandera.api.polars.components import Column

from data_contracts.rules import KINDS
from data_contracts.sources import Source
from tests import make


@dataclass(frozen=True)
class Fault:
    """A record that breaks a rule.

    Attributes:
        rule: the code it must get.
        record: the values, typed; a cell of `cells` stands in their place in a CSV.
        cells: text that no type can hold.
    """

    rule: str
    record: make.Record
    cells: dict[str, str]


BAD_TEXT: dict[object, tuple[str, tuple[str, ...]]] = {
    pl.Int64: ("not_integer", ("abc", "1.5", "1.0", "1e3", "1 000", "1_000", " 5", "+5", "٣", "9" * 19, "9" * 400)),
    pl.Date: (
        "not_date",
        ("2024-02-30", "2023-02-29", "2024-13-01", "2024/01/01", "20240101", "01-02-2024", "2024-1-1", "0000-00-00",
         "2024-01-01T00:00:00", "today", "45292"),
    ),
    pl.Boolean: ("not_boolean", ("yes", "TRUE", "True", "1", "0", "是", " true")),
}  # fmt: skip


def faults_of_columns(source: Source) -> Iterator[Fault]:
    """Null where forbidden, unreadable, out of range, not listed, of a wrong form or length: column by column."""
    good = make.MAKERS[source.name]()
    for name, column in source.columns.items():
        if not column.nullable:
            yield Fault(f"{name}_null", good | {name: None}, {})
        suffix, texts = BAD_TEXT.get(source.types[name], ("", ()))
        for text in texts:
            yield Fault(f"{name}_{suffix}", good, {name: text})
        for value, code in _outside(name, column):
            yield Fault(code, good | {name: value}, {})


def _outside(name: str, column: Column) -> Iterator[tuple[Any, str]]:
    for check in column.checks:
        statistics: dict[str, Any] = check.statistics or {}
        code = f"{name}_{KINDS[check.name or ''].suffix}"
        match check.name:
            case "greater_than_or_equal_to":
                yield statistics["min_value"] - _step(statistics["min_value"]), code
            case "less_than_or_equal_to":
                yield statistics["max_value"] + _step(statistics["max_value"]), code
            case "isin":
                yield "no such value", code
            case "str_matches":
                yield "A\x00B", code
                yield "\t", code
            case "str_length":
                yield "X" * (statistics["max_value"] + 1), code
            case _:
                raise AssertionError(f"no fault for {check.name}")


def _step(value: object) -> Any:
    return timedelta(days=1) if isinstance(value, date) else 1


MISTYPED = "91350211000000019J"


def _of_party(column: str, *, upper: bool) -> dict[str, make.Record]:
    found: dict[str, make.Record] = {
        f"{column}_written_otherwise": {column: "B00001 "},
        f"{column}_names_nobody": {column: "N/A"},
    }
    return found | ({f"{column}_check_character": {column: MISTYPED}} if upper else {})


DAY = date(2024, 1, 1)
EARLIER = date(2023, 12, 31)
LATER = date(2024, 1, 2)
ACROSS_FIELDS: dict[str, dict[str, make.Record]] = {
    "enterprises": {
        "known_on_before_established_on": {"known_on": EARLIER, "established_on": DAY},
        **_of_party("group_id", upper=True),
    },
    "qualifications": {
        "known_on_before_granted_on": {"known_on": EARLIER, "granted_on": DAY},
        "valid_to_before_granted_on": {"valid_to": EARLIER, "granted_on": DAY, "known_on": DAY},
    },
    "financial_statements": {"known_on_before_period_end": {"known_on": EARLIER, "period_end": DAY}},
    "social_insurance": {
        "known_on_before_month": {"known_on": EARLIER, "month": DAY},
        "month_not_first_day": {"month": date(2024, 1, 2)},
    },
    "innovation_indicators": {
        "value_without_report": {"state": "missing", "value": 1},
        "known_on_before_year": {"year": 2025, "known_on": DAY},
    },
    "tax_filings": {
        "period_to_before_period_from": {"period_from": DAY, "period_to": EARLIER},
        "known_on_before_period_to": {"known_on": EARLIER, "period_from": DAY, "period_to": DAY},
        "known_on_before_paid_on": {"known_on": DAY, "period_to": EARLIER, "period_from": EARLIER, "paid_on": LATER},
        "arrears_above_tax": {"arrears_fen": 2, "tax_fen": 1, "paid_on": None},
        "arrears_after_payment": {"arrears_fen": 1, "paid_on": DAY},
    },
    "taxpayer_ratings": {"known_on_before_year": {"year": 2025, "known_on": DAY}},
    "invoices": {
        **_of_party("counterparty_id", upper=True),
        "known_on_before_issued_on": {"known_on": EARLIER, "issued_on": DAY},
        "gross_not_net_plus_tax": {"net_fen": -100, "tax_fen": 13, "gross_fen": -113},
        "red_of_on_positive": {"red_of": "00000009"},
        "digital_invoice_void": {"invoice_no": "2" * 20, "is_void": True},
    },
    "debts": {
        **_of_party("lender_id", upper=False),
        **_of_party("debt_id", upper=False),
        "known_on_before_as_of": {"known_on": EARLIER, "as_of": DAY},
        "as_of_before_opened_on": {"as_of": EARLIER, "opened_on": DAY},
        "closed_on_before_opened_on": {"closed_on": EARLIER, "opened_on": DAY},
        "as_of_before_closed_on": {"as_of": DAY, "known_on": LATER, "closed_on": LATER},
    },
    "public_records": {
        "known_on_before_listed_on": {"known_on": EARLIER, "listed_on": DAY},
        "removed_on_before_listed_on": {"removed_on": EARLIER, "listed_on": DAY},
        "known_on_before_removed_on": {"known_on": EARLIER, "removed_on": DAY, "listed_on": EARLIER},
    },
    "loan_outcomes": {
        **_of_party("lender_id", upper=False),
        **_of_party("loan_id", upper=False),
        "observed_until_before_opened_on": {"observed_until": EARLIER, "opened_on": DAY},
        "known_on_before_opened_on": {"known_on": EARLIER, "opened_on": DAY},
        "known_on_before_observed_until": {"opened_on": EARLIER, "known_on": DAY, "observed_until": LATER},
        "defaulted_on_before_opened_on": {"defaulted": True, "defaulted_on": EARLIER, "opened_on": DAY},
        "observed_until_before_defaulted_on": {"defaulted": True, "defaulted_on": DAY, "observed_until": EARLIER},
        "default_day_without_default": {"defaulted": False, "defaulted_on": DAY},
    },
    "feeds": {
        "period_to_before_period_from": {"period_from": DAY, "period_to": EARLIER},
        "known_on_before_period_to": {"known_on": EARLIER, "period_to": DAY},
        "direction_of_invoices_only": {"source": "debts", "direction": "out"},
    },
}
"""By source and rule: what breaks it."""
BAD_CODES = ("91350211000000019J", "91350211000000019h", "９1350211000000019H", "91350211 00000019H", "123", " " * 18)


def faults(source: Source) -> list[Fault]:
    """All faults of a source, both of single columns and across columns."""
    maker = make.MAKERS[source.name]
    across = [Fault(rule, maker() | changes, {}) for rule, changes in ACROSS_FIELDS[source.name].items()]
    codes = [Fault("uscc_check_character", maker() | {"uscc": code}, {}) for code in BAD_CODES]
    return [*faults_of_columns(source), *across, *codes]
