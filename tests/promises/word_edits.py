"""What an applicant would have said of a row, and what a correction that hurts says: all rows of a source at once."""

from collections.abc import Mapping
from datetime import date

import polars as pl

from data_contracts.sources import SOURCES
from tests.promises.edits import Frames, with_net

Changes = Mapping[str, pl.Expr]

_NET = pl.col("net_fen")
_VALUE = pl.col("value")
_NOTHING = pl.lit(0, pl.Int64)
_REPORTED = pl.col("state") == "reported"

WISHED: Mapping[str, Changes] = {
    "enterprises": {
        "zone_entered_on": pl.col("established_on"),
        "registration_status": pl.lit("active"),
        "employees": pl.lit(5, pl.Int64),
        "revenue_fen": pl.lit(10**9, pl.Int64),
        "group_id": pl.lit(None, pl.String),
    },
    "qualifications": {"valid_to": pl.lit(date(2199, 12, 31))},
    "financial_statements": {"value_fen": pl.col("value_fen") * 9 + 10**8, "audited": pl.lit(value=True)},
    "social_insurance": {"headcount": pl.col("headcount") + 50, "arrears_fen": _NOTHING},
    "innovation_indicators": {"value": _VALUE.abs() * 50 + 10_000},
    "tax_filings": {
        "declared_sales_fen": pl.col("declared_sales_fen") * 5 + 10**8,
        "tax_fen": pl.col("tax_fen") * 5 + 10**7,
        "refund_fen": _NOTHING,
        "late_days": _NOTHING,
        "arrears_fen": _NOTHING,
        "paid_on": pl.col("period_to"),
    },
    "taxpayer_ratings": {"grade": pl.lit("A")},
    "invoices": {**with_net(pl.when(_NET > 0).then(_NET * 3).otherwise(_NET // 3)), "is_void": pl.lit(value=False)},
    "debts": {
        "balance_fen": _NOTHING,
        "limit_fen": _NOTHING,
        "overdue_days": _NOTHING,
        "five_class": pl.lit("normal"),
        "closed_on": pl.col("as_of"),
    },
    "public_records": {"removed_on": pl.col("listed_on")},
    "feeds": {"row_count": _NOTHING, "total_fen": pl.when(pl.col("total_fen").is_not_null()).then(_NOTHING)},
}
"""By source: the content that would help most."""

FEARED: Mapping[str, Changes] = {
    "qualifications": {"valid_to": pl.col("granted_on")},
    "financial_statements": {"value_fen": pl.col("value_fen") // 3},
    "social_insurance": {"headcount": _NOTHING, "arrears_fen": pl.col("arrears_fen") + 10**7},
    "innovation_indicators": {"value": pl.when(_REPORTED).then(_NOTHING)},
    "tax_filings": {
        "late_days": pl.col("late_days") + 90,
        "arrears_fen": pl.col("tax_fen"),
        "paid_on": pl.lit(None, pl.Date),
    },
    "taxpayer_ratings": {"grade": pl.lit("D")},
    "invoices": {"is_void": ~pl.col("invoice_no").str.contains(r"^[0-9]{20}$")},
    "debts": {"overdue_days": pl.col("overdue_days") + 31},
    "public_records": {"removed_on": pl.lit(None, pl.Date)},
}
"""By source: a correction that hurts. Of the registry nothing is promised: scope has no order."""


def of_authorities(frames: Frames, name: str) -> Frames:
    """The facts as if an authority had supplied every row of a source."""
    return {**frames, name: frames[name].with_columns(supplier=pl.lit("authority"))}


def said(frames: Frames, name: str, changes: Changes, *, supplier: str, known_on: date | None) -> pl.DataFrame:
    """Each row of a source said anew with other content: on the day of the row, or last of its key on a later day."""
    rows = frames[name]
    if name == "innovation_indicators":
        rows = rows.filter(_REPORTED)
    if known_on is not None:
        rows = rows.filter(pl.col("known_on") < known_on)
        rows = rows.sort("known_on").unique(SOURCES[name].key, keep="last", maintain_order=True)
        rows = rows.with_columns(known_on=pl.lit(known_on))
    return rows.with_columns(**changes, supplier=pl.lit(supplier))


def beside(frames: Frames, name: str, more: pl.DataFrame) -> Frames:
    """The rows before those of the source, as a file may hold them in any order."""
    return {**frames, name: pl.concat([more, frames[name]])}


def unreadable(rows: pl.DataFrame) -> pl.DataFrame:
    """The same rows, each breaking its contract."""
    return rows.with_columns(supplier=pl.lit("somebody"))
