"""Completeness marks of the made-up park.

On joining (for a borrower: before the loan opens) a firm's past is delivered whole, under one mark; from then on
every calendar quarter is delivered a few days after its end, and the running one on the day before `as_of`. So the
marks known on a loan's opening day, and those known on `as_of`, cover everything that a look back from there asks for.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from data_contracts.marks import lasting, stood
from data_contracts.samples_days import NEVER, Bools, Ints, dates, first_days, framed, months_of, stream
from data_contracts.samples_firms import Firms
from data_contracts.samples_trade import Lines
from data_contracts.sources import FEEDS, SOURCES, Source

INCOMPLETE_SHARE = 0.04
_PERIODS = 10
"""The past, and at most nine quarters begun in the 24 months since."""


@dataclass(frozen=True)
class Deliveries:
    """Periods in which facts were delivered, sorted by firm and day.

    Attributes:
        firm: whose.
        ordinal: 0 is the past, then 1, 2, … by quarter.
        first, last: days covered.
        known: day of the mark.
    """

    firm: Ints
    ordinal: Ints
    first: Ints
    last: Ints
    known: Ints


@dataclass(frozen=True)
class Delivered:
    """Rows of one source with their corrections, which here leave the amount as it was.

    Attributes:
        firm: whose.
        happened: the day by which a mark counts the row.
        known: day known.
        amount: what a mark sums, 0 of a correction; null: nothing.
        standing: all versions of what stands for longer than a day, as in the contract; null: nothing does.
    """

    firm: Ints
    happened: Ints
    known: Ints
    amount: Ints | None
    standing: pl.DataFrame | None = None


def deliveries(firms: Firms) -> Deliveries:
    """All periods of all firms."""
    ordinal = np.arange(_PERIODS)
    begins = (firms.joined[:, None] // 3 + ordinal[None, :] - 1) * 3
    begins[:, 1] = firms.joined
    begins[:, 0] = firms.start
    following = np.column_stack([begins[:, 1:], begins[:, -1:] + 3])
    firm, place = np.nonzero(begins < firms.end)
    first, last = first_days(begins)[firm, place], first_days(following)[firm, place] - 1
    final = following[firm, place] >= firms.end
    past = place == 0
    known = np.where(past, last, np.minimum(last + 3 + firm % 6, firms.last_day))
    return Deliveries(
        firm=firm,
        ordinal=place,
        first=first,
        last=np.where(final & ~past, firms.last_day, last),
        known=np.where(final & ~past, firms.last_day, known),
    )


def invoice_rows(lines: Lines, *, sold: bool) -> Delivered:
    """The invoices of one direction; a void known later is a second version."""
    repeats = (np.diff(lines.number) == 0) & (np.diff(lines.firm) == 0) & (np.diff(lines.day) == 0)
    kept = lines.sold == sold
    again = np.concatenate([[False], repeats])
    amount = np.where(again, 0, lines.net + lines.tax)
    return Delivered(lines.firm[kept], lines.day[kept], lines.known[kept], amount[kept])


def source_rows(firms: Firms, name: str, frame: pl.DataFrame) -> Delivered:
    """The rows of any other source, a correction without amount, and beside them those that stand for longer."""
    source = SOURCES[name]
    places = pl.DataFrame({"uscc": firms.code, "firm": np.arange(firms.size)})
    events, standing = lasting(source, frame)
    rows = events.sort("known_on", maintain_order=True).join(places, on="uscc", how="left", maintain_order="left")
    first = rows.select(pl.struct(source.key).is_first_distinct()).to_series()
    happened = rows["known_on"] if source.happened_on is None else rows[source.happened_on]
    return Delivered(
        firm=rows["firm"].to_numpy(),
        happened=happened.to_physical().cast(pl.Int64).to_numpy(),
        known=rows["known_on"].to_physical().cast(pl.Int64).to_numpy(),
        amount=(rows[source.total_of] * first).to_numpy() if source.total_of else None,
        standing=standing,
    )


def marks_of(firms: Firms, periods: Deliveries, name: str, direction: str | None, rows: Delivered) -> pl.DataFrame:
    """One mark a period of one source: rows that happened in it and were known by the mark's day."""
    source = SOURCES[name]
    if source.happened_on is None:
        count, total = _known_by(firms, periods, rows), None
    else:
        count, total = _in_period(firms, periods, rows)
    # Sources of few rows are delivered from the firm's birth on, the others for the look-back.
    since_birth = (periods.ordinal == 0) & (source.total_of is None)
    born = np.minimum(firms.established[periods.firm], periods.first)
    marked = framed(
        FEEDS,
        {
            "uscc": firms.code.gather(periods.firm),
            "known_on": dates(periods.known),
            "supplier": "bank" if name == "debts" else "authority",
            "source": name,
            "direction": pl.Series([direction]).cast(pl.String).gather(np.zeros(len(count), np.int64)),
            "period_from": dates(np.where(since_birth, born, periods.first)),
            "period_to": dates(periods.last),
            "row_count": count,
            "total_fen": pl.Series([None] * len(count), dtype=pl.Int64) if total is None else total,
        },
    )
    return marked if rows.standing is None else _with_standing(source, marked, rows.standing)


def _with_standing(source: Source, marked: pl.DataFrame, standing: pl.DataFrame) -> pl.DataFrame:
    """The marks with what stood in their periods added."""
    numbered = marked.with_row_index("mark")
    spoken = numbered.select("mark", "uscc", first="period_from", last="period_to", marked_on="known_on")
    amount = pl.col(source.total_of).sum() if source.total_of else pl.lit(0)
    more = stood(source, standing, spoken).group_by("mark").agg(rows=pl.col("versions").sum(), sum=amount)
    both = numbered.join(more, on="mark", how="left", maintain_order="left")
    return both.with_columns(
        row_count=pl.col("row_count") + pl.col("rows").fill_null(0),
        total_fen=pl.col("total_fen") + pl.col("sum").fill_null(0),
    ).select(marked.columns)


def _in_period(firms: Firms, periods: Deliveries, rows: Delivered) -> tuple[Ints, Ints | None]:
    """Rows and amounts by period. A firm's periods follow each other, so a row's day names its one period."""
    joined = firms.joined[rows.firm]
    quarter = months_of(rows.happened) // 3 - joined // 3 + 1
    ordinal = np.where(rows.happened < first_days(joined), 0, quarter)
    begins = np.searchsorted(periods.firm, np.arange(firms.size + 1))
    place = np.minimum(begins[rows.firm] + ordinal, begins[rows.firm + 1] - 1)
    counted = rows.known <= periods.known[place]
    count = np.bincount(place[counted], minlength=len(periods.firm)).astype(np.int64)
    if rows.amount is None:
        return count, None
    total = np.zeros(len(periods.firm), np.int64)
    np.add.at(total, place[counted], rows.amount[counted])
    return count, total


def _known_by(firms: Firms, periods: Deliveries, rows: Delivered) -> Ints:
    """All rows known by the mark's day, for sources whose rows have no day of their own."""
    known = np.sort(rows.firm * NEVER + rows.known)
    begins = np.searchsorted(known, np.arange(firms.size) * NEVER)
    return np.searchsorted(known, periods.firm * NEVER + periods.known, side="right") - begins[periods.firm]


def only_of(periods: Deliveries, firms: Bools) -> Deliveries:
    """The periods of some firms."""
    kept = firms[periods.firm]
    return Deliveries(**{name: column[kept] for name, column in vars(periods).items()})


def with_gaps(firms: Firms, feeds: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Marks of a few firms spoilt in one source: never delivered, none in the last half-year, or naming too many rows.

    Returns:
        The marks, and one row per spoilt feed: `uscc`, `source`, `direction`, `fault`.
    """
    rng = stream(seed, "gaps")
    spoilt = np.flatnonzero(rng.random(firms.size) < INCOMPLETE_SHARE)
    which = rng.integers(0, 5, len(spoilt))
    spoilt_sources = ["invoices", "invoices", "tax_filings", "social_insurance", "public_records"]
    gaps = pl.DataFrame(
        {
            "uscc": firms.code.gather(spoilt),
            "source": pl.Series(spoilt_sources).gather(which),
            "direction": pl.Series(["out", "in", None, None, None], dtype=pl.String).gather(which),
            "fault": pl.Series(["never_delivered", "stopped", "rows_missing"]).gather(rng.integers(0, 3, len(spoilt))),
        }
    )
    marked = feeds.join(gaps, on=["uscc", "source", "direction"], how="left", nulls_equal=True, maintain_order="left")
    last = pl.col("period_to") == pl.lit(firms.as_of).dt.offset_by("-1d")
    fault = pl.col("fault").fill_null("")
    recent = pl.col("period_to") > pl.lit(firms.as_of).dt.offset_by("-7mo")
    dropped = (fault == "never_delivered") | ((fault == "stopped") & recent)
    short = pl.when((fault == "rows_missing") & last).then(2).otherwise(0)
    kept = marked.filter(~dropped).with_columns(row_count=pl.col("row_count") + short)
    return kept.select(feeds.columns), gaps
