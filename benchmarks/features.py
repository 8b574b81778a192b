"""The sales features of a park: ours against pandas, duckdb and polars as one would write them, in one run.

    python benchmarks/features.py                       2,000 firms, half a million invoices
    python benchmarks/features.py --enterprises 20000   5 million invoices
    python benchmarks/features.py --only ours polars

Every contender gets the same checked invoices in its own kind of table and must give the same whole numbers: red
letters taken off the invoices they name, related parties left out, windows of 3 to 36 completed months, weakest parts,
active months, breadth and concentration of buyers, repeat sales, cancelled share. Ours alone also looks for corrected
versions. The firms are made up; the figures are about speed.

The baselines need the extra `bench`: pip install -e '.[bench]'.
"""

import argparse
import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import polars as pl
from sales_rivals import COLUMNS, KEY, PARTS, WINDOWS, Given, parts_of, stretches_of, with_duckdb, with_pandas

from data_contracts.checking import sources_of
from data_contracts.samples import AS_OF, park
from data_contracts.sources import Sources
from scoring.calendar import month_number
from scoring.conduct import current
from scoring.features import features, narrowed
from scoring.trade import (
    LEAST_PARTNER_FEN,
    MONTHS,
    MOST_CANCELLED_BP,
    by_partner,
    cancelled_share,
    ledgers,
    partner_features,
    sales_features,
)


def given_of(sources: Sources) -> Given:
    """The sales side of a park."""
    registry = current(sources, "enterprises", AS_OF)
    groups = registry.drop_nulls("group_id").select("uscc", "group_id")
    pairs = groups.join(groups.select("group_id", counterparty_id="uscc"), on="group_id")
    sold = current(sources, "invoices", AS_OF).filter(pl.col("direction") == "out")
    return Given(
        sources=replace(sources, invoices=sold),
        firms=registry.select("uscc").sort("uscc"),
        invoices=sold.select("uscc", "counterparty_id", "invoice_no", "red_of", "is_void", "issued_on", "net_fen"),
        members=pairs.filter(pl.col("uscc") != pl.col("counterparty_id")).select("uscc", "counterparty_id"),
    )


def ours(given: Given) -> Callable[[], pl.DataFrame]:
    """The engine's own functions."""

    def computed() -> pl.DataFrame:
        firms = given.firms.with_row_index("firm")
        related = given.members.join(firms, on="uscc").select("firm", "counterparty_id")
        sold, _ = ledgers(given.sources, firms, related, AS_OF)
        found = {
            **sales_features(sold, firms.height),
            **partner_features(sold, by_partner(sold), firms.height),
            "cancelled_share_12m_bp": cancelled_share(sold, firms.height),
        }
        return pl.DataFrame({"uscc": firms["uscc"], **{name: found[name] for name in COLUMNS}})

    return computed


# --------------------------------------------------------------------------------------------------------------- polars


def natural_polars(given: Given) -> Callable[[], pl.DataFrame]:
    """Polars as one would write it first: lazy, groups by the columns as they are, one collect."""
    return lambda: _polars(given.invoices.lazy(), given.members.lazy(), given.firms.lazy()).collect()


def _polars(invoices: pl.LazyFrame, members: pl.LazyFrame, firms: pl.LazyFrame) -> pl.LazyFrame:
    month = pl.col("issued_on").dt.year().cast(pl.Int64) * 12 + pl.col("issued_on").dt.month() - 1
    rows = (
        invoices.filter(pl.col("uscc") != pl.col("counterparty_id"))
        .join(members, on=["uscc", "counterparty_id"], how="anti")
        .select(
            "is_void",
            "red_of",
            firm="uscc",
            partner="counterparty_id",
            number="invoice_no",
            net="net_fen",
            age=month_number(AS_OF) - 1 - month,
        )
    )
    positive = rows.filter(~pl.col("is_void"), pl.col("net") > 0)
    negative = rows.filter(~pl.col("is_void"), pl.col("net") < 0).with_columns(amount=-pl.col("net"))
    sales, reds = _polars_reversed(positive, negative)
    void = rows.filter(pl.col("is_void"), pl.col("net") > 0).select("firm", "age", amount="net")
    cancelled = pl.concat([void, negative.select("firm", "age", "amount")])
    signed = pl.concat(
        [sales.select("firm", "age", amount="net"), reds.select("firm", "age", amount=-pl.col("amount"))]
    )
    active = (
        signed.filter(pl.col("age").is_between(0, MONTHS - 1))
        .group_by("firm", "age")
        .agg(pl.col("amount").sum())
        .filter(pl.col("amount") > 0)
        .group_by("firm")
        .agg(
            *(
                (pl.col("age") < months).sum().cast(pl.Int64).alias(f"active_months_{months}m")
                for months in (12, 24, 36)
            ),
            months_since_sale=pl.col("age").min(),
        )
    )
    stretches = {f"s{start}.{stop}": (start, stop) for start, stop in stretches_of()}
    sold = sales.group_by("firm").agg(
        *(pl.col("net").filter(pl.col("age").is_between(a, b - 1)).sum().alias(k) for k, (a, b) in stretches.items()),
        gross=pl.col("gross").filter(pl.col("age") < 12).sum(),
    )
    unlinked = reds.group_by("firm").agg(
        pl.col("amount").filter(pl.col("age") < months).sum().alias(f"u{months}") for months in WINDOWS
    )
    void_or_red = cancelled.filter(pl.col("age") < 12).group_by("firm").agg(cancelled=pl.col("amount").sum())
    whole = firms.rename({"uscc": "firm"})
    for part in (sold, unlinked, void_or_red, _polars_buyers(sales, reds), active):
        whole = whole.join(part, on="firm", how="left")
    return _polars_features(whole.with_columns(pl.col("months_since_sale").fill_null(MONTHS)).fill_null(0).sort("firm"))


def _polars_features(whole: pl.LazyFrame) -> pl.LazyFrame:
    kept = pl.col("s0.12") - pl.col("u12")
    trade = pl.col("cancelled") + pl.col("gross")

    def less(top: str) -> pl.Expr:
        return (kept - ((2 * pl.col(top) - kept).clip(0) + 3) // 4).clip(0)

    return whole.select(
        pl.col("firm").alias("uscc"),
        *((pl.col(f"s0.{m}") - pl.col(f"u{m}")).clip(0).alias(f"sales_{m}m_fen") for m in WINDOWS),
        *(
            (pl.min_horizontal(f"s{a}.{b}" for a, b in parts_of(months, parts)) - pl.col(f"u{months}"))
            .clip(0)
            .alias(name)
            for name, (months, parts) in PARTS.items()
        ),
        *(f"active_months_{months}m" for months in (12, 24, 36)),
        "months_since_sale",
        "buyers_12m",
        less("top1").alias("sales_less_top1_12m_fen"),
        less("top5").alias("sales_less_top5_12m_fen"),
        "repeat_sales_12m_fen",
        pl.when(trade > 0)
        .then((pl.col("cancelled").cast(pl.Int128) * 10_000 // trade).clip(0, MOST_CANCELLED_BP))
        .otherwise(0)
        .cast(pl.Int64)
        .alias("cancelled_share_12m_bp"),
    )


def _polars_reversed(positive: pl.LazyFrame, negative: pl.LazyFrame) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    linked = (
        negative.filter(pl.col("red_of").is_not_null())
        .group_by("firm", "partner", "age", number="red_of")
        .agg(pl.col("amount").sum())
    )
    sums = linked.group_by(KEY).agg(red=pl.col("amount").sum())
    reversed_ = positive.join(sums, on=KEY, how="left").sort("age", "net")
    before = pl.col("net").cum_sum().over(KEY) - pl.col("net")
    taken = pl.min_horizontal((pl.col("red").fill_null(0) - before).clip(0), "net")
    reversed_ = reversed_.with_columns(taken=taken)
    sales = reversed_.select("firm", "partner", "age", gross="net", net=pl.col("net") - pl.col("taken"))
    used = reversed_.filter(pl.col("red").is_not_null()).group_by(KEY).agg(used=pl.col("taken").sum())
    earlier = pl.col("amount").cum_sum().over(KEY) - pl.col("amount")
    excess = (
        linked.join(used, on=KEY, how="left")
        .sort("age", descending=True)
        .with_columns(spent=(pl.col("used").fill_null(0) - earlier).clip(0))
        .select("firm", "partner", "age", amount=(pl.col("amount") - pl.col("spent")).clip(0))
        .filter(pl.col("amount") > 0)
    )
    loose = negative.filter(pl.col("red_of").is_null()).select("firm", "partner", "age", "amount")
    return sales, pl.concat([loose, excess])


def _polars_buyers(sales: pl.LazyFrame, reds: pl.LazyFrame) -> pl.LazyFrame:
    recent, earlier = pl.col("age").is_between(0, 11), pl.col("age").is_between(12, 23)
    raw = (
        sales.filter(pl.col("age").is_between(0, 23))
        .group_by("firm", "partner")
        .agg(raw=pl.col("net").filter(recent).sum(), prior=pl.col("net").filter(earlier).sum())
    )
    red = reds.group_by("firm", "partner").agg(
        red=pl.col("amount").filter(pl.col("age") < 12).sum(), red_prior=pl.col("amount").filter(earlier).sum()
    )
    both = raw.join(red, on=["firm", "partner"], how="left").with_columns(
        net=pl.col("raw") - pl.col("red").fill_null(0), before=pl.col("prior") - pl.col("red_prior").fill_null(0)
    )
    return both.group_by("firm").agg(
        top1=pl.col("raw").max(),
        top5=pl.col("raw").top_k(5).sum(),
        buyers_12m=(pl.col("net") >= LEAST_PARTNER_FEN).sum().cast(pl.Int64),
        repeat_sales_12m_fen=pl.col("net").clip(0).filter(pl.col("before") > 0).sum(),
    )


# ------------------------------------------------------------------------------------------------------------- the run

CONTENDERS: Mapping[str, Callable[[Given], Callable[[], pl.DataFrame]]] = {
    "ours": ours,
    "pandas": with_pandas,
    "duckdb": with_duckdb,
    "polars": natural_polars,
}


def timed(run: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Best and median seconds after one run to warm up."""
    run()
    seconds: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds), statistics.median(seconds)


def compared(given: Given, names: Sequence[str], rounds: int) -> dict[str, tuple[float, float]]:
    """Best and median seconds of each contender, after all have given the same numbers."""
    expected: pl.DataFrame | None = None
    found: dict[str, tuple[float, float]] = {}
    for name in names:
        run = CONTENDERS[name](given)
        answer = run().select("uscc", pl.col(COLUMNS).cast(pl.Int64)).sort("uscc")
        expected = answer if expected is None else expected
        different = [column for column in answer.columns if not answer[column].equals(expected[column])]
        if different:
            raise SystemExit(f"{name} does not agree with {names[0]} on {', '.join(different)}")
        found[name] = timed(run, rounds)
    return found


def lines_of(title: str, found: Mapping[str, tuple[float, float]]) -> list[str]:
    """A table of milliseconds and ratios to the first contender."""
    first = next(iter(found.values()))
    lines = [f"\n{title}", f"  {'':<10}{'best ms':>12}{'median ms':>12}{'x the first':>14}"]
    return lines + [
        f"  {name:<10}{best * 1e3:>12,.1f}{middle * 1e3:>12,.1f}{best / first[0]:>14.2f}"
        for name, (best, middle) in found.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print versions, a table for the whole park and one for a single firm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--enterprises", type=int, default=2_000, help="each has about 250 invoices, sold and bought")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), default=list(CONTENDERS))
    chosen = parser.parse_args(arguments)
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("polars", "pandas", "duckdb", "numpy")))
    print(
        f"{os.cpu_count()} processors, polars on {pl.thread_pool_size()} threads, duckdb on 2, pandas on 1", flush=True
    )
    sources, _ = sources_of(park(chosen.enterprises, 0).frames)
    given = given_of(sources)
    title = f"sales features, {given.firms.height:,} firms, {given.invoices.height:,} sales invoices"
    print("\n".join(lines_of(title, compared(given, chosen.only, chosen.rounds))), flush=True)
    busy = given.invoices.group_by("uscc").len().sort((pl.col("len") - 250).abs(), "uscc")["uscc"][0]
    one = given_of(narrowed(sources, [busy]))
    one = replace(one, firms=one.firms.filter(pl.col("uscc") == busy))
    one = replace(one, invoices=one.invoices.filter(pl.col("uscc") == busy))
    title = f"sales features, one firm, {one.invoices.height} sales invoices"
    print("\n".join(lines_of(title, compared(one, chosen.only, 50))), flush=True)
    whole = f"all features, {given.firms.height:,} firms, {sources.invoices.height:,} invoices and all other sources"
    print("\n".join(lines_of(whole, {"ours": timed(lambda: features(sources, AS_OF), 1)})))


if __name__ == "__main__":
    main()
