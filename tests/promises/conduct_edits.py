"""Edits of every other source, one a firm, for all firms at once (see `edits`)."""

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl

from scoring.conduct import TECH_TAGS
from tests.promises.edits import Change, Edit, Frames, added, dropped, edited

PAID_CLEAN = pl.col("paid_on").is_not_null() & (pl.col("arrears_fen") == 0) & (pl.col("late_days") == 0)
BETTER_GRADE = {"B": "A", "M": "B", "C": "M", "D": "C"}
BETTER_CLASS = {"loss": "doubtful", "doubtful": "substandard", "substandard": "special_mention"}
BETTER_CLASS |= {"special_mention": "normal"}


def _edit(name: str, where: pl.Expr, **changes: pl.Expr) -> Change:
    return lambda frames, _, rng: edited(frames, name, where, rng, **changes)


def _everywhere(name: str, **changes: pl.Expr) -> Change:
    """The same change in every row of a source: what one row's lot may miss."""
    return lambda frames, _as_of, _rng: {**frames, name: frames[name].with_columns(**changes)}


def _drop(name: str, where: pl.Expr) -> Change:
    return lambda frames, _, rng: dropped(frames, name, where, rng)


def _firms(frames: Frames, share: float, rng: np.random.Generator) -> pl.DataFrame:
    """Some firms, each with what every row must say of who knew it."""
    firms = frames["enterprises"].select("uscc").unique().sort("uscc")
    chosen = firms.filter(pl.Series(rng.random(firms.height) < share))
    return chosen.with_columns(supplier=pl.lit("authority"))


def _certificate(tag: str) -> Change:
    def change(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
        granted = as_of - timedelta(days=int(rng.integers(0, 700)))
        row = _firms(frames, 0.7, rng).with_columns(
            known_on=pl.lit(granted),
            tag=pl.lit(tag),
            level=pl.lit("national"),
            granted_on=pl.lit(granted),
            valid_to=pl.lit(as_of + timedelta(days=int(rng.integers(0, 700)))),
        )
        return added(frames, "qualifications", row)

    return change


def _rating(grade: str) -> Change:
    def change(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
        year = as_of.year - int(rng.integers(1, 3))
        row = _firms(frames, 0.7, rng).with_columns(
            known_on=pl.lit(date(year, 5, 1)), year=pl.lit(year, pl.Int64), grade=pl.lit(grade)
        )
        return added(frames, "taxpayer_ratings", row)

    return change


def _listing(kind: str) -> Change:
    def change(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
        day = as_of - timedelta(days=int(rng.integers(0, 1_300)))
        row = _firms(frames, 0.5, rng).with_columns(
            known_on=pl.lit(day), kind=pl.lit(kind), listed_on=pl.lit(day), removed_on=pl.lit(None, pl.Date)
        )
        return added(frames, "public_records", row)

    return change


def _debt(kind: str) -> Change:
    """A new debt; only of firms whose debts are reported at all, as others have no feed that could know of it."""

    def change(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
        day = as_of - timedelta(days=1)
        row = _firms(frames, 0.7, rng).with_columns(
            known_on=pl.lit(day),
            lender_id=pl.lit("bank-new"),
            debt_id=pl.lit("new"),
            as_of=pl.lit(day),
            kind=pl.lit(kind),
            balance_fen=pl.lit(int(10 ** rng.uniform(4, 9.5))),
            limit_fen=pl.lit(int(10 ** rng.uniform(4, 9.5))),
            overdue_days=pl.lit(0),
            five_class=pl.lit("normal"),
            opened_on=pl.lit(day),
            closed_on=pl.lit(None, pl.Date),
        )
        return added(frames, "debts", row)

    return change


def _add_indicators(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
    """One indicator of the last year for some firms, at a value that earns something."""
    wanted = frames["innovation_indicators"].select("indicator_id", "unit").unique().sort("indicator_id")
    if wanted.is_empty():
        return frames
    firms = _firms(frames, 0.7, rng)
    drawn = wanted[rng.integers(0, wanted.height, firms.height)]
    year = as_of.year - int(rng.integers(1, 3))
    rows = firms.hstack(drawn).with_columns(
        known_on=pl.lit(date(year, 12, 31)),
        year=pl.lit(year, pl.Int64),
        value=pl.Series((10 ** (rng.random(firms.height) * 8)).astype(np.int64)),
        state=pl.lit("reported"),
    )
    return added(frames, "innovation_indicators", rows)


def _report_missing_indicator(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
    return edited(
        frames,
        "innovation_indicators",
        pl.col("state") != "reported",
        rng,
        state=pl.lit("reported"),
        value=pl.lit(int(rng.integers(-5, 10**6)), pl.Int64),
    )


_PAY = {"paid_on": pl.col("known_on"), "arrears_fen": pl.lit(0, pl.Int64)}
_REPORTED = pl.col("state") == "reported"

CONDUCT_EDITS: Sequence[Edit] = (
    Edit(
        "pay and file a tax in time",
        "better",
        _edit("tax_filings", pl.col("late_days") > 0, late_days=pl.lit(0, pl.Int64)),
    ),
    Edit(
        "pay every tax earlier", "better", _everywhere("tax_filings", late_days=(pl.col("late_days") - 7).clip(0, None))
    ),
    Edit("pay what is owed", "better", _edit("tax_filings", pl.col("paid_on").is_null(), **_PAY)),
    Edit("pay everything owed", "better", _everywhere("tax_filings", **_PAY)),
    Edit(
        "owe more of a tax due",
        "worse",
        _edit(
            "tax_filings",
            pl.lit(value=True),
            paid_on=pl.lit(None, pl.Date),
            arrears_fen=pl.col("tax_fen"),
        ),
    ),
    Edit("pay later", "worse", _edit("tax_filings", pl.lit(value=True), late_days=pl.col("late_days") + 40)),
    Edit("pay more tax", "better", _edit("tax_filings", PAID_CLEAN, tax_fen=pl.col("tax_fen") * 3 + 1)),
    Edit("pay more of every tax", "better", _everywhere("tax_filings", tax_fen=pl.col("tax_fen") + 10**7)),
    Edit(
        "take back more than was paid in a quarter",
        "worse",
        _edit("tax_filings", PAID_CLEAN, refund_fen=pl.col("tax_fen") * 4 + 10**6),
    ),
    Edit("take tax back", "worse", _everywhere("tax_filings", refund_fen=pl.col("tax_fen") // 2)),
    Edit(
        "declare more",
        "better",
        _edit("tax_filings", pl.col("tax_kind") == "vat", declared_sales_fen=pl.col("declared_sales_fen") * 2 + 1),
    ),
    Edit("declare less", "worse", _edit("tax_filings", pl.lit(value=True), declared_sales_fen=pl.lit(0, pl.Int64))),
    Edit("never file a clean filing", "worse", _drop("tax_filings", PAID_CLEAN)),
    Edit(
        "be rated a step better",
        "better",
        _edit(
            "taxpayer_ratings", pl.col("grade").is_in(list(BETTER_GRADE)), grade=pl.col("grade").replace(BETTER_GRADE)
        ),
    ),
    Edit("be rated A in a year without rating", "better", _rating("A")),
    Edit("be rated D everywhere", "worse", _everywhere("taxpayer_ratings", grade=pl.lit("D"))),
    Edit("insure more persons", "better", _everywhere("social_insurance", headcount=pl.col("headcount") + 3)),
    Edit("insure nobody in a month", "worse", _drop("social_insurance", pl.col("arrears_fen") == 0)),
    Edit("pay contributions", "better", _everywhere("social_insurance", arrears_fen=pl.lit(0, pl.Int64))),
    Edit(
        "owe contributions",
        "worse",
        _edit("social_insurance", pl.lit(value=True), arrears_fen=pl.col("arrears_fen") + 10**6),
    ),
    Edit(
        "insure a person less",
        "worse",
        _edit("social_insurance", pl.col("headcount") > 0, headcount=pl.lit(0, pl.Int64)),
    ),
    Edit("drop a public record", "better", _drop("public_records", pl.lit(value=True))),
    Edit(
        "drop every public record",
        "better",
        lambda frames, _as_of, _rng: {
            **frames,
            "public_records": frames["public_records"].clear(),
        },
    ),
    Edit("settle a record", "better", _edit("public_records", pl.lit(value=True), removed_on=pl.col("listed_on"))),
    Edit("be sued", "worse", _listing("lawsuit_defendant")),
    Edit("be fined", "worse", _listing("administrative_penalty")),
    Edit("be listed", "worse", _listing("enforcement")),
    Edit("repay overdue amounts", "better", _everywhere("debts", overdue_days=pl.lit(0, pl.Int64))),
    Edit("be overdue", "worse", _edit("debts", pl.lit(value=True), overdue_days=pl.col("overdue_days") + 31)),
    Edit(
        "be classified a step better",
        "better",
        _everywhere("debts", five_class=pl.col("five_class").replace(BETTER_CLASS)),
    ),
    Edit(
        "owe less",
        "better",
        _everywhere("debts", balance_fen=pl.col("balance_fen") // 2, limit_fen=pl.col("limit_fen") // 2),
    ),
    Edit("close a line", "better", _edit("debts", pl.col("closed_on").is_null(), closed_on=pl.col("as_of"))),
    Edit("owe more without security", "worse", _debt("unsecured")),
    Edit("owe more working capital", "worse", _debt("working_capital")),
    Edit("owe more with security", "same", _debt("secured")),
    *(Edit(f"be certified {tag}", "better", _certificate(tag)) for tag in TECH_TAGS),
    Edit(
        "let a certificate lapse", "worse", _edit("qualifications", pl.lit(value=True), valid_to=pl.col("granted_on"))
    ),
    Edit("lose a certificate", "worse", _drop("qualifications", pl.lit(value=True))),
    Edit("have one more indicator", "better", _add_indicators),
    Edit("report an indicator that was missing", "better", _report_missing_indicator),
    Edit(
        "raise an indicator", "better", _edit("innovation_indicators", _REPORTED, value=pl.col("value").abs() * 2 + 1)
    ),
    Edit("raise every indicator", "better", _everywhere("innovation_indicators", value=pl.col("value").abs() * 2 + 1)),
    Edit("never report an indicator", "worse", _drop("innovation_indicators", pl.lit(value=True))),
)
"""What may happen to a firm besides its invoices."""
