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

from data_contracts.marks import lasting, stood
from data_contracts.sources import APPLICANT, SOURCES, Sources
from scoring.calendar import filings_due_until, first_day, marks_due_until, month_number, months_before


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

    def due_from(self, as_of: date) -> date:
        """The first day that they must cover: that of the window in which the source's rows count."""
        if self.source == "tax_filings":
            return first_day(month_number(self.due_until(as_of)) + 1 - self.months)
        return months_before(as_of, self.months) if self.months else self.due_until(as_of)


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


def heard(sources: Sources, name: str, as_of: date) -> pl.DataFrame:
    """The rows of a source that count: known by `as_of`, and not the applicant's own word where others deliver.

    Invoices, filings, ratings, insurance, debts, records, loan outcomes and their marks come from an authority or a
    bank; what an applicant says of them neither helps nor hurts, so it can neither clear a record nor vouch for a feed.
    """
    rows = known(getattr(sources, name), as_of)
    return rows.filter(pl.col("supplier") != APPLICANT) if SOURCES[name].is_delivered else rows


def latest(frame: pl.DataFrame, key: Iterable[str]) -> pl.DataFrame:
    """Of each key the row known last; a correction replaces what it corrects, but an applicant corrects no one else.

    Row order is not kept when rows go.
    """
    key = list(key)
    # Comparing hashes finds every repeated key, and hardly another, in a third of the time.
    suspect = frame.select(key).hash_rows().is_duplicated()
    if not suspect.any():
        return frame
    ranked = [pl.col("supplier") != APPLICANT] if "supplier" in frame.columns else []
    corrected = frame.filter(suspect).sort(*ranked, "known_on").unique(subset=key, keep="last", maintain_order=True)
    return pl.concat([frame.filter(~suspect), corrected])


def feed_states(sources: Sources, firms: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """The state of every feed: one row per firm in `firms` (`uscc`, `established_on`), in its order."""
    marks = _marks(sources, firms, as_of)
    found = pl.concat([_reconciled(feed, sources, marks, as_of) for feed in FEEDS])
    counted = pl.col("row_count") == pl.col("rows").fill_null(0)
    summed = pl.col("total_fen").is_null() | (pl.col("total_fen") == pl.col("sum").fill_null(0))
    marked = marks.join(found, on="mark", how="left").group_by("feed", "uscc").agg(agrees=(counted & summed).all())
    states = (
        marked.join(_covered(marks, firms), on=["feed", "uscc"], how="left")
        .join(_doubted(sources, as_of), on=["feed", "uscc"], how="left")
        .select(
            "feed",
            "uscc",
            state=pl.when(pl.col("agrees") & pl.col("covered") & pl.col("doubted").is_null())
            .then(pl.lit("complete"))
            .otherwise(pl.lit("incomplete")),
        )
    )
    wide = states.group_by("uscc").agg(
        pl.col("state").filter(pl.col("feed") == feed.name).first().alias(feed.name) for feed in FEEDS
    )
    return (
        firms.select("uscc")
        .join(wide, on="uscc", how="left", maintain_order="left")
        .with_columns(pl.exclude("uscc").fill_null("missing"))
    )


def _feeds(as_of: date) -> pl.DataFrame:
    """`feed`, `source`, `direction`, and the first and last day that its marks must cover by `as_of`."""
    return pl.DataFrame(
        {
            "feed": [feed.name for feed in FEEDS],
            "source": [feed.source for feed in FEEDS],
            "direction": [feed.direction for feed in FEEDS],
            "start": [feed.due_from(as_of) for feed in FEEDS],
            "due": [feed.due_until(as_of) for feed in FEEDS],
        }
    )


def _marks(sources: Sources, firms: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """The marks of the firms that stand, numbered in `mark`, with the columns of `_feeds`."""
    marks = latest(heard(sources, "feeds", as_of), SOURCES["feeds"].key)
    mine = marks.join(_feeds(as_of), on=["source", "direction"], nulls_equal=True)
    return mine.join(firms.select("uscc"), on="uscc", how="semi").with_row_index("mark")


def _doubted(sources: Sources, as_of: date) -> pl.DataFrame:
    """`feed`, `uscc` and `doubted`, true: what a firm's feed says contradicts itself, or a row of it is in quarantine.

    A quarantined invoice without a direction may be of both; a quarantined row of the registry or of the marks puts
    every feed of its firm in doubt, since who the firm is, or what was delivered, is then not known. Filings of one
    kind whose periods overlap declare the same sales twice.
    """
    told = sources.doubts.filter(pl.col("known_on").is_null() | (pl.col("known_on") <= as_of))
    pairs = told.select("uscc", "source", said="direction").join(_feeds(as_of), on="source")
    said = pl.col("said").eq_missing(pl.col("direction")) | pl.col("said").is_null()
    of_all = told.filter(pl.col("source").is_in(["enterprises", "feeds"])).select("uscc").unique()
    filings = latest(heard(sources, "tax_filings", as_of), SOURCES["tax_filings"].key).sort("period_from")
    before = pl.col("period_to").cum_max().shift(1).over("uscc", "tax_kind")
    twice = filings.filter(pl.col("period_from") <= before).select(pl.lit("tax_filings_feed").alias("feed"), "uscc")
    doubts = [
        pairs.filter(said).select("feed", "uscc"),
        _feeds(as_of).select("feed").join(of_all, how="cross"),
        twice,
    ]
    return pl.concat(doubts).unique().with_columns(doubted=True)


def _reconciled(feed: Feed, sources: Sources, marks: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """`mark`, `rows` and `sum`: rows that each mark of a feed speaks of and the total of the latest; none: no row here.

    Rows of one day are found by an as-of join; only what stood for longer is put beside every mark of its firm.
    """
    source = SOURCES[feed.source]
    happened = source.happened_on
    amount = pl.col(source.total_of) if source.total_of is not None else pl.lit(None, pl.Int64)
    # Filings have a period of their own: the mark's goes by other names.
    spoken = marks.filter(pl.col("feed") == feed.name).select(
        "uscc", "mark", first="period_from", last="period_to", marked_on="known_on"
    )
    rows = heard(sources, feed.source, as_of).lazy()
    if feed.direction is not None:
        rows = rows.filter(pl.col("direction") == feed.direction)
    standing = [] if source.stands_until is None else source.stands_until.meta.root_names()
    told = dict.fromkeys([*source.key, "known_on", *standing])
    versions = rows.join(spoken.lazy().select("uscc"), on="uscc", how="semi").select(*told, amount=amount).collect()
    events, states = lasting(source, versions)
    pairs = events.join(spoken, on="uscc") if happened is None else _in_period(events, spoken, happened)
    told = pairs.filter(pl.col("known_on") <= pl.col("marked_on"))
    counts = [told.group_by("mark").agg(rows=pl.len().cast(pl.Int64))]
    last = [latest(told, ("mark", *source.key)).select("mark", "amount")]
    if states.height:
        still = stood(source, states, spoken)
        counts.append(still.group_by("mark").agg(rows=pl.col("versions").sum()))
        last.append(still.select("mark", "amount"))
    counted = pl.concat(counts).group_by("mark").agg(pl.col("rows").sum())
    return counted.join(pl.concat(last).group_by("mark").agg(sum=pl.col("amount").sum()), on="mark")


def _in_period(versions: pl.DataFrame, spoken: pl.DataFrame, happened: str) -> pl.DataFrame:
    """Each row beside each mark whose period it happened in.

    Where a firm's marks do not overlap (nearly always), the mark is the last one that began by then, found by an
    as-of join; only firms with overlapping marks pay for the full join.
    """
    ordered = spoken.sort("uscc", "first")
    before = pl.col("last").cum_max().shift(1).over("uscc")
    overlapping = ordered.filter(pl.col("first") <= before).select("uscc").unique()
    plain, apart = versions, spoken
    if overlapping.height:
        plain, apart = (frame.join(overlapping, on="uscc", how="anti") for frame in (versions, spoken))
    pairs = plain.sort(happened).join_asof(
        apart.sort("first"),
        left_on=happened,
        right_on="first",
        by="uscc",
        strategy="backward",
        coalesce=False,
        check_sortedness=False,
    )
    if overlapping.height:
        several = versions.join(overlapping, on="uscc", how="semi").join(spoken, on="uscc")
        pairs = pl.concat([pairs, several.select(pairs.columns)])
    return pairs.filter(pl.col("mark").is_not_null(), pl.col(happened).is_between("first", "last"))


def _covered(marks: pl.DataFrame, firms: pl.DataFrame) -> pl.DataFrame:
    """`feed`, `uscc` and `covered`, one row a marked feed of a firm: its marks leave no gap in the look-back."""
    spans = (
        marks.join(firms.select("uscc", "established_on"), on="uscc")
        .with_columns(needed_from=pl.max_horizontal("established_on", "start"))
        .sort("feed", "uscc", "period_from")
    )
    needed = pl.col("period_to") >= pl.col("needed_from")
    reached = pl.col("period_to").filter(needed).cum_max().shift(1)
    start = pl.col("period_from").filter(needed)
    gap = start > pl.coalesce(reached + timedelta(days=1), pl.col("needed_from").filter(needed))
    inside = start <= pl.col("due").filter(needed)
    found = spans.group_by("feed", "uscc").agg(
        gapless=~(gap & inside).any(),
        until=pl.col("period_to").filter(needed).max(),
        young=(pl.col("established_on") > pl.col("due")).first(),
        due=pl.col("due").first(),
    )
    reaches = pl.col("gapless") & (pl.col("until") >= pl.col("due")).fill_null(value=False)
    return found.select("feed", "uscc", covered=reaches | pl.col("young"))
