"""Completeness marks: what a supplier delivered, counted and summed so that a reader can tell whether rows are missing.

The figures follow the `Feeds` contract: the rows that happened, or stood, in the period and were known by the mark's
own day, corrections as well, and the amount of the latest known row of each key.
"""

from dataclasses import dataclass
from datetime import date

import polars as pl

from data_contracts.sources import DIRECTIONS, FEEDS, Source


@dataclass(frozen=True)
class Period:
    """What a mark speaks of.

    Attributes:
        first: first day covered.
        last: last day covered.
        known_on: the day the mark was made; rows known later are not its business.
    """

    first: date
    last: date
    known_on: date


def marks(source: Source, rows: pl.DataFrame, enterprises: pl.Series, period: Period, supplier: str) -> pl.DataFrame:
    """One mark an enterprise for a source, and one a direction for invoices; no rows is a mark of zero rows.

    Args:
        source: the source spoken of.
        rows: its rows, typed as in its contract. Repeats count once; of two rows with one key and day, the one that
            stands later gives the amount.
        enterprises: distinct credit codes to make marks for.
        period: see `Period`.
        supplier: who vouches for the delivery.

    Returns:
        A frame of the `Feeds` contract, in the order of `enterprises`.
    """
    grid = _grid(source, enterprises)
    spoken = pl.DataFrame(
        {"uscc": enterprises, "mark": 0, "first": period.first, "last": period.last},
        schema_overrides={"uscc": pl.String, "mark": pl.Int64},
    ).with_columns(marked_on=pl.lit(period.known_on))
    latest = stood(source, rows, spoken)
    if "direction" not in source.key:
        latest = latest.with_columns(direction=pl.lit(None, pl.String))
    counted = latest.group_by("uscc", "direction").agg(row_count=pl.col("versions").sum(), total_fen=_sum(source))
    found = grid.join(counted, on=["uscc", "direction"], how="left", nulls_equal=True, maintain_order="left")
    marked = found.with_columns(
        pl.col("row_count").fill_null(0).cast(pl.Int64),
        pl.col("total_fen").fill_null(0) if source.total_of else pl.col("total_fen"),
        known_on=pl.lit(period.known_on),
        supplier=pl.lit(supplier),
        source=pl.lit(source.name),
        period_from=pl.lit(period.first),
        period_to=pl.lit(period.last),
    )
    return marked.select(list(FEEDS.columns))


def _grid(source: Source, enterprises: pl.Series) -> pl.DataFrame:
    directions = list(DIRECTIONS) if "direction" in source.key else [None]
    return pl.DataFrame({"uscc": enterprises}).join(
        pl.DataFrame({"direction": directions}, schema={"direction": pl.String}), how="cross"
    )


def lasting(source: Source, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that each belong to the one day they happened on, and rows of subjects that stood for longer.

    Args:
        source: whose rows they are.
        rows: its key, and the columns that `stands_until` reads.
    """
    if source.happened_on is None or source.stands_until is None:
        return rows, rows.clear()
    until = source.stands_until
    states = rows.filter(until.is_null() | (until > pl.col(source.happened_on))).select(source.subject).unique()
    events = rows.join(states, on=source.subject, how="anti", maintain_order="left")
    return events, rows.join(states, on=source.subject, how="semi", maintain_order="left")


def stood(source: Source, rows: pl.DataFrame, spoken: pl.DataFrame) -> pl.DataFrame:
    """Each mark beside each row that it speaks of: known by its day, the latest of its key, in force in its period.

    `versions` says how many rows of the key were known by that day.

    Args:
        source: whose rows they are; for a source without a day every known row is spoken of.
        rows: its key, `known_on` and the columns that `stands_until` reads, all versions, later ones last in a day.
        spoken: `mark` (its number), `uscc`, `first` and `last` day covered, and `marked_on`, the day it was made.
    """
    newest_last = rows.sort("known_on", maintain_order=True)
    pairs = newest_last.join(spoken, on="uscc", maintain_order="left")
    told = pl.col("known_on") <= pl.col("marked_on")
    if source.happened_on is not None:
        told = told & (pl.col(source.happened_on) <= pl.col("last"))
    versions = pl.col("known_on").n_unique().cast(pl.Int64).over("mark", *source.key)
    latest = pairs.filter(told).with_columns(versions=versions).unique(["mark", *source.key], keep="last")
    if source.happened_on is None:
        return latest
    began = pl.col(source.happened_on)
    until = began
    if source.stands_until is not None:
        # Beside each row the next one, not a window for each of many small groups: this is a tenth of the time.
        group = ("mark", *source.subject)
        latest = latest.sort(*group, source.happened_on)
        is_next = pl.all_horizontal(pl.col(one).eq_missing(pl.col(one).shift(-1)) for one in group)
        following = pl.when(is_next).then(began.shift(-1))
        until = pl.min_horizontal(source.stands_until, following - pl.duration(days=1))
    still = until.is_null() | (pl.max_horizontal(until, began) >= pl.col("first"))
    return latest.filter(still)


def _sum(source: Source) -> pl.Expr:
    return pl.col(source.total_of).sum() if source.total_of else pl.lit(None, pl.Int64)
