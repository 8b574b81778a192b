"""Is a feed complete? Completeness marks are reconciled with the rows, so that "clean" and "not delivered" differ.

A feed of an enterprise is

- `missing`     no mark of it is known as of the day;
- `incomplete`  a mark does not agree with the rows (count or total), a row of it is in quarantine, or the marks leave
                a gap in the look-back: we cannot tell what is not there;
- `complete`    otherwise.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from data_contracts.sources import SOURCES, Source, Sources
from scoring.calendar import filings_due_until, marks_due_until, months_before


@dataclass(frozen=True)
class Feed:
    """One feed that a decision may lean on.

    Attributes:
        name: column of the feature frame.
        source: whose rows it marks.
        direction: of invoices; None elsewhere.
        months: how many completed months before `as_of` its marks must cover, as far as the firm existed;
            0: only the latest day due must be covered (a report of standing, such as debts).
    """

    name: str
    source: str
    direction: str | None
    months: int

    def due_until(self, as_of: date) -> date:
        """The last day that marks must cover by `as_of`."""
        return filings_due_until(as_of) if self.source == "tax_filings" else marks_due_until(as_of)


FEEDS = (
    Feed("invoices_out_feed", "invoices", "out", 12),
    Feed("invoices_in_feed", "invoices", "in", 12),
    Feed("tax_filings_feed", "tax_filings", None, 24),
    Feed("taxpayer_ratings_feed", "taxpayer_ratings", None, 24),
    Feed("social_insurance_feed", "social_insurance", None, 12),
    Feed("debts_feed", "debts", None, 0),
    Feed("public_records_feed", "public_records", None, 36),
)


def known(frame: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """The rows known by `as_of`."""
    return frame.filter(pl.col("known_on") <= as_of)


def latest(frame: pl.DataFrame, key: Iterable[str]) -> pl.DataFrame:
    """Of each key the row known last; a correction replaces what it corrects. Row order is not kept when rows go."""
    key = list(key)
    if frame.height == 0 or not frame.select(key).is_duplicated().any():
        return frame
    return frame.sort("known_on").unique(subset=key, keep="last", maintain_order=True)


def feed_states(sources: Sources, firms: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """The state of every feed: one row per firm in `firms` (`uscc`, `established_on`), in its order."""
    marks = latest(known(sources.feeds, as_of), SOURCES["feeds"].key)
    states = firms.select("uscc")
    for feed in FEEDS:
        states = states.join(
            _states_of(feed, sources, marks, firms, as_of), on="uscc", how="left", maintain_order="left"
        )
    return states


def _states_of(feed: Feed, sources: Sources, marks: pl.DataFrame, firms: pl.DataFrame, as_of: date) -> pl.DataFrame:
    source = SOURCES[feed.source]
    mine = marks.filter(pl.col("source") == feed.source, pl.col("direction").eq_missing(feed.direction))
    mine = mine.join(firms.select("uscc"), on="uscc", how="semi").with_row_index("mark")
    rows = known(getattr(sources, feed.source), as_of)
    if feed.direction is not None:
        rows = rows.filter(pl.col("direction") == feed.direction)
    rows = rows.join(mine.select("uscc").unique(), on="uscc", how="semi")
    agrees = _reconciled(mine, rows, source)
    covered = _covered(mine, firms, feed, as_of)
    doubted = sources.doubts.filter(
        pl.col("source") == feed.source,
        pl.col("direction").eq_missing(feed.direction) | pl.col("direction").is_null(),
        pl.col("known_on").is_null() | (pl.col("known_on") <= as_of),
    ).select("uscc")
    marked = agrees.group_by("uscc").agg(pl.col("agrees").all())
    return (
        firms.select("uscc")
        .join(marked, on="uscc", how="left")
        .join(covered, on="uscc", how="left")
        .join(doubted.unique().with_columns(doubted=True), on="uscc", how="left")
        .select(
            "uscc",
            pl.when(pl.col("agrees").is_null())
            .then(pl.lit("missing"))
            .when(pl.col("agrees") & pl.col("covered") & pl.col("doubted").is_null())
            .then(pl.lit("complete"))
            .otherwise(pl.lit("incomplete"))
            .alias(feed.name),
        )
    )


def _reconciled(marks: pl.DataFrame, rows: pl.DataFrame, source: Source) -> pl.DataFrame:
    """`uscc` and `agrees`, one row a mark: count and total of the rows it speaks of are what it says."""
    happened = source.happened_on
    amount = pl.col(source.total_of) if source.total_of is not None else pl.lit(None, pl.Int64)
    versions = rows.select("uscc", *[name for name in source.key if name != "uscc"], "known_on", amount.alias("amount"))
    spoken = marks.select("uscc", "mark", "period_from", "period_to", marked_on="known_on")
    pairs = versions.join(spoken, on="uscc") if happened is None else _in_period(versions, spoken, happened)
    pairs = latest(pairs.filter(pl.col("known_on") <= pl.col("marked_on")), ("mark", *source.key))
    found = pairs.group_by("mark").agg(rows=pl.len().cast(pl.Int64), sum=pl.col("amount").sum())
    return (
        marks.join(found, on="mark", how="left")
        .with_columns(pl.col("rows").fill_null(0), pl.col("sum").fill_null(0))
        .select(
            "uscc",
            agrees=(pl.col("row_count") == pl.col("rows"))
            & (pl.col("total_fen").is_null() | (pl.col("total_fen") == pl.col("sum"))),
        )
    )


def _in_period(versions: pl.DataFrame, spoken: pl.DataFrame, happened: str) -> pl.DataFrame:
    """Each row beside each mark whose period it happened in.

    Where a firm's marks do not overlap (nearly always), the mark is the last one that began by then, found by an
    as-of join; only firms with overlapping marks pay for the full join.
    """
    ordered = spoken.sort("uscc", "period_from")
    before = pl.col("period_to").cum_max().shift(1).over("uscc")
    overlapping = ordered.filter(pl.col("period_from") <= before).select("uscc").unique()
    plain = versions.join(overlapping, on="uscc", how="anti").sort(happened)
    single = plain.join_asof(
        spoken.join(overlapping, on="uscc", how="anti").sort("period_from"),
        left_on=happened,
        right_on="period_from",
        by="uscc",
        strategy="backward",
        coalesce=False,
        check_sortedness=False,
    )
    several = versions.join(overlapping, on="uscc", how="semi").join(spoken, on="uscc")
    pairs = pl.concat(
        [single.drop("uscc_right", strict=False), several.select(single.drop("uscc_right", strict=False).columns)]
    )
    return pairs.filter(pl.col("mark").is_not_null(), pl.col(happened).is_between("period_from", "period_to"))


def _covered(marks: pl.DataFrame, firms: pl.DataFrame, feed: Feed, as_of: date) -> pl.DataFrame:
    """`uscc` and `covered`, one row a marked firm: its marks leave no gap in the look-back."""
    due = feed.due_until(as_of)
    start = months_before(as_of, feed.months) if feed.months else due
    spans = (
        marks.join(firms.select("uscc", needed_from=pl.max_horizontal("established_on", pl.lit(start))), on="uscc")
        .filter(pl.col("period_to") >= pl.col("needed_from"))
        .sort("uscc", "period_from")
        .with_columns(reached=(pl.col("period_to").cum_max().shift(1).over("uscc")))
    )
    gap = pl.col("period_from") > pl.coalesce(pl.col("reached") + timedelta(days=1), pl.col("needed_from"))
    inside = pl.col("period_from") <= due
    gapless = spans.group_by("uscc").agg(
        gapless=~(gap & inside).any(), until=pl.col("period_to").max(), needed_from=pl.col("needed_from").first()
    )
    found = marks.select("uscc").unique().join(gapless, on="uscc", how="left")
    young = firms.select("uscc", young=pl.col("established_on") > due)
    reaches = pl.col("gapless").fill_null(value=False) & (pl.col("until") >= due).fill_null(value=False)
    return found.join(young, on="uscc", how="left").select("uscc", covered=reaches | pl.col("young"))
