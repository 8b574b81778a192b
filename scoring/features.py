"""Features as of a day: the one way from checked facts to the row that a decision is made from.

`features(sources, as_of)` sees only facts known by `as_of`. Rows of different firms do not touch (but for the
registry's group ids and the debts of a group), so one firm alone, a chunk and the whole park give the same bits.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import NewType

import polars as pl

from data_contracts.sources import Sources
from scoring.calendar import filings_due_until, month_number, whole_months_between
from scoring.catalogue import CATALOGUE, MASKED, SEEN, UNDER_POLICY
from scoring.conduct import (
    certificate_features,
    current,
    debt_features,
    insurance_features,
    need_features,
    rating_features,
    record_features,
    tax_features,
)
from scoring.feeds import feed_states
from scoring.trade import (
    by_partner,
    cancelled_share,
    ledgers,
    partner_features,
    purchase_features,
    round_trade,
    sales_features,
    shown_sales,
)

Features = NewType("Features", pl.DataFrame)
"""A frame with `uscc`, every catalogue column but those under a policy, and the `_seen` columns; ordered by `uscc`."""

COLUMNS: tuple[str, ...] = tuple(
    name for name in CATALOGUE if name not in {feature.name for feature in UNDER_POLICY}
) + tuple(feature.name + SEEN for feature in MASKED)
"""The columns after `uscc`, in order."""


def narrowed(sources: Sources, usccs: Sequence[str]) -> Sources:
    """The facts that the features of these enterprises need, and no others.

    Of other enterprises only the registry rows and debts of group members stay; `features(..., only=usccs)` of the
    result equals the same rows of the whole park's features, bit for bit.
    """
    wanted = pl.DataFrame({"uscc": list(usccs)}, schema={"uscc": pl.String}).unique()
    groups = sources.enterprises.join(wanted, on="uscc", how="semi").select("group_id").drop_nulls().unique()
    members = sources.enterprises.join(groups, on="group_id", how="semi").select("uscc")
    peers = pl.concat([wanted, members]).unique()
    kept = {
        name: frame.join(peers if name in {"enterprises", "debts"} else wanted, on="uscc", how="semi")
        for name, frame in vars(sources).items()
    }
    return replace(sources, **kept)


def features(sources: Sources, as_of: date, *, only: Sequence[str] | None = None) -> Features:
    """One row per enterprise known by `as_of`, ordered by `uscc`.

    Args:
        sources: checked facts; facts known after `as_of` change nothing.
        as_of: the day looked from; windows are completed calendar months before it.
        only: make rows for these enterprises only; the others still count as group members.
    """
    registry = current(sources, "enterprises", as_of)
    chosen = registry if only is None else registry.filter(pl.col("uscc").is_in(list(only)))
    firms = chosen.sort("uscc").with_row_index("firm")
    members = _members(firms, registry)
    states = feed_states(sources, firms, as_of)
    parts = [
        _registry(firms, members, as_of),
        _trade(sources, firms, members, as_of),
        tax_features(sources, firms, as_of),
        rating_features(sources, firms, as_of),
        insurance_features(sources, firms, as_of),
        debt_features(sources, firms, members.select("uscc", member="counterparty_id"), as_of),
        record_features(sources, firms, as_of),
        certificate_features(sources, firms, as_of),
        need_features(sources, firms, as_of),
        states,
    ]
    # Every part has the rows of `firms`, in its order.
    frame = pl.concat([firms.select("uscc"), *(part.drop("uscc", strict=False) for part in parts)], how="horizontal")
    return Features(_masked(_derived(frame)).select("uscc", *COLUMNS))


def _members(firms: pl.DataFrame, registry: pl.DataFrame) -> pl.DataFrame:
    """`firm`, `uscc` and `counterparty_id` of every other member of a firm's group."""
    grouped = firms.filter(pl.col("group_id").is_not_null()).select("firm", "uscc", "group_id")
    return (
        grouped.join(registry.select("group_id", counterparty_id="uscc"), on="group_id")
        .filter(pl.col("uscc") != pl.col("counterparty_id"))
        .drop("group_id")
    )


def _registry(firms: pl.DataFrame, members: pl.DataFrame, as_of: date) -> pl.DataFrame:
    others = members.group_by("firm").agg(group_members=pl.len().cast(pl.Int64))
    firms = firms.join(others, on="firm", how="left", maintain_order="left")
    entered = pl.col("zone_entered_on")
    return firms.select(
        "industry_code",
        "employees",
        "revenue_fen",
        "total_assets_fen",
        "registration_status",
        pl.col("group_members").fill_null(0),
        age_months=whole_months_between(pl.col("established_on"), as_of),
        zone_months=pl.when(entered <= as_of).then(whole_months_between(entered, as_of)),
    )


def _trade(sources: Sources, firms: pl.DataFrame, members: pl.DataFrame, as_of: date) -> pl.DataFrame:
    count = firms.height
    numbered = firms.select("uscc", "firm")
    related = members.select("firm", "counterparty_id")
    sold, bought = ledgers(sources, numbered, related, as_of)
    buyers, suppliers = by_partner(sold), by_partner(bought)
    months_due = month_number(as_of) - 1 - month_number(filings_due_until(as_of))
    return pl.DataFrame(
        {
            **sales_features(sold, count),
            **partner_features(sold, buyers, count),
            **purchase_features(bought, suppliers, count),
            **shown_sales(sold, count, months_due),
            "cancelled_share_12m_bp": cancelled_share(sold, count),
            "round_trade_share_12m_bp": round_trade(buyers, suppliers, count),
        }
    )


def _derived(frame: pl.DataFrame) -> pl.DataFrame:
    """What follows from columns of several sources."""
    filed = pl.col("tax_filings_feed") == "complete"
    invoiced = pl.col("sales_due_12m_fen")
    return frame.with_columns(
        tax_paid_complete_24m_fen=pl.when(filed).then("tax_paid_24m_fen").otherwise(0),
        declared_to_invoiced_bp=pl.when(invoiced > 0).then(
            (pl.col("declared_sales_12m_fen").cast(pl.Int128) * 10_000 // invoiced).cast(pl.Int64)
        ),
    )


def _masked(frame: pl.DataFrame) -> pl.DataFrame:
    """Null what an incomplete feed cannot tell; keep what the delivered rows show beside it."""
    seen = [pl.col(feature.name).alias(feature.name + SEEN) for feature in MASKED]
    known = [
        pl.when(pl.all_horizontal(pl.col(feed) == "complete" for feed in feature.feeds))
        .then(feature.name)
        .alias(feature.name)
        for feature in MASKED
    ]
    return frame.with_columns(seen).with_columns(known)


def taken_at_their_word(frame: pl.DataFrame) -> pl.DataFrame:
    """The same rows as if every feed were complete: what the firm would be if the missing facts turn out clean.

    Only what could be unfavourable is assumed clean; favourable facts that are missing stay missing.
    """
    feeds = sorted({feed for feature in MASKED for feed in feature.feeds})
    return frame.with_columns(
        *(pl.col(feature.name + SEEN).alias(feature.name) for feature in MASKED),
        *(pl.lit("complete").alias(feed) for feed in feeds),
        tax_paid_complete_24m_fen=pl.col("tax_paid_24m_fen"),
        statements_doubted=pl.lit(value=False),
    )
