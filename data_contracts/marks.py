"""Completeness marks: what a supplier delivered, counted and summed so that a reader can tell whether rows are missing.

The figures follow the `Feeds` contract: distinct keys of the rows that happened in the period and were known by the
mark's own day, and the amount of the latest known row of each key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import polars as pl

from data_contracts.sources import DIRECTIONS, FEEDS, SOURCES, Source


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
        rows: its rows, typed as in its contract. Exact repeats count once; of two rows with one key and day, the one
            that stands later counts.
        enterprises: distinct credit codes to make marks for.
        period: see `Period`.
        supplier: who vouches for the delivery.

    Returns:
        A frame of the `Feeds` contract, in the order of `enterprises`.
    """
    grid = _grid(source, enterprises)
    counted = (
        _latest(source, rows, period).group_by("uscc", "direction").agg(row_count=pl.len(), total_fen=_sum(source))
    )
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


def marks_of_all(
    delivered: Mapping[str, pl.DataFrame], enterprises: pl.Series, period: Period, supplier: str
) -> pl.DataFrame:
    """`marks` of several sources, given by name, one under the other."""
    return pl.concat([marks(SOURCES[name], rows, enterprises, period, supplier) for name, rows in delivered.items()])


def _grid(source: Source, enterprises: pl.Series) -> pl.DataFrame:
    directions = list(DIRECTIONS) if "direction" in source.key else [None]
    return pl.DataFrame({"uscc": enterprises}).join(
        pl.DataFrame({"direction": directions}, schema={"direction": pl.String}), how="cross"
    )


def _latest(source: Source, rows: pl.DataFrame, period: Period) -> pl.DataFrame:
    known = pl.col("known_on") <= period.known_on
    in_period = (
        known & pl.col(source.happened_on).is_between(period.first, period.last) if source.happened_on else known
    )
    newest_last = rows.filter(in_period).sort("known_on", maintain_order=True)
    latest = newest_last.unique(source.key, keep="last")
    return latest if "direction" in source.key else latest.with_columns(direction=pl.lit(None, pl.String))


def _sum(source: Source) -> pl.Expr:
    return pl.col(source.total_of).sum() if source.total_of else pl.lit(None, pl.Int64)
