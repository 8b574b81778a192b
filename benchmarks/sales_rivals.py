"""What `features.py` compares with: the same sales features by pandas and by one SQL statement of duckdb.

The baselines need the extra `bench`: pip install -e '.[bench]'.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeAlias

import polars as pl

from data_contracts.samples import AS_OF
from data_contracts.sources import Sources
from scoring.calendar import month_number
from scoring.trade import LEAST_PARTNER_FEN, MONTHS, MOST_CANCELLED_BP

try:
    import duckdb
    import pandas as pd
except ImportError as error:
    raise SystemExit(f"{error}: the baselines need the extra `bench` (pip install -e '.[bench]')") from error

WINDOWS = (3, 6, 12, 24, 36)
PARTS = {"weaker_half_12m_fen": (12, 2), "weakest_quarter_12m_fen": (12, 4), "weaker_year_24m_fen": (24, 2)}
COLUMNS = (
    *(f"sales_{months}m_fen" for months in WINDOWS),
    *PARTS,
    *(f"active_months_{months}m" for months in (12, 24, 36)),
    "months_since_sale",
    "buyers_12m",
    "sales_less_top1_12m_fen",
    "sales_less_top5_12m_fen",
    "repeat_sales_12m_fen",
    "cancelled_share_12m_bp",
)
KEY = ["firm", "partner", "number"]
Table: TypeAlias = Any
"""A frame or column of pandas, which has no types here."""


@dataclass(frozen=True)
class Given:
    """What every contender starts from.

    Attributes:
        sources: checked facts; the invoices are those sold.
        firms: `uscc`, ascending.
        invoices: `uscc`, `counterparty_id`, `invoice_no`, `red_of`, `is_void`, `issued_on`, `net_fen`.
        members: `uscc` and `counterparty_id` of related parties.
    """

    sources: Sources
    firms: pl.DataFrame
    invoices: pl.DataFrame
    members: pl.DataFrame


def parts_of(months: int, parts: int) -> list[tuple[int, int]]:
    """The stretches that a window is cut into: first month and the one after the last."""
    length = months // parts
    return [(part * length, (part + 1) * length) for part in range(parts)]


def stretches_of() -> list[tuple[int, int]]:
    """Every stretch of months that a feature sums."""
    found = {(0, months) for months in WINDOWS}
    return sorted(found | {one for months, parts in PARTS.values() for one in parts_of(months, parts)})


# --------------------------------------------------------------------------------------------------------------- pandas


def with_pandas(given: Given) -> Callable[[], pl.DataFrame]:
    """Pandas, column by column."""
    invoices = given.invoices.to_pandas()
    invoices["issued_on"] = pd.to_datetime(invoices["issued_on"])
    members, firms = given.members.to_pandas(), given.firms.to_pandas()
    return lambda: pl.DataFrame({"uscc": firms["uscc"], **_pandas(invoices, members, firms["uscc"])})


def _pandas(invoices: Table, members: Table, firms: Table) -> dict[str, Table]:
    rows = invoices[invoices["uscc"] != invoices["counterparty_id"]]
    related = rows.merge(members, on=["uscc", "counterparty_id"], how="left", indicator=True)["_merge"].to_numpy()
    rows = rows[related == "left_only"]
    rows = rows.rename(columns={"uscc": "firm", "counterparty_id": "partner", "invoice_no": "number", "net_fen": "net"})
    month = rows["issued_on"].dt.year * 12 + rows["issued_on"].dt.month - 1
    rows["age"] = (month_number(AS_OF) - 1 - month).astype("int64")
    positive = rows[~rows["is_void"] & (rows["net"] > 0)]
    negative = rows[~rows["is_void"] & (rows["net"] < 0)]
    negative = negative.assign(amount=-negative["net"])
    sales, reds = _pandas_reversed(positive, negative)
    void = rows[rows["is_void"] & (rows["net"] > 0)]
    cancelled = pd.concat([void[["firm", "age"]].assign(amount=void["net"]), negative[["firm", "age", "amount"]]])

    def per_firm(table: Table, column: str) -> Table:
        return table.groupby("firm")[column].sum().reindex(firms, fill_value=0).to_numpy()

    def between(start: int, stop: int) -> Table:
        return per_firm(sales[(sales["age"] >= start) & (sales["age"] < stop)], "net")

    sums = {stretch: between(*stretch) for stretch in stretches_of()}
    unlinked = {months: per_firm(reds[reds["age"] < months], "amount") for months in WINDOWS}
    found = {f"sales_{months}m_fen": (sums[0, months] - unlinked[months]).clip(0) for months in WINDOWS}
    for name, (months, parts) in PARTS.items():
        weakest = pd.DataFrame({part: sums[part] for part in parts_of(months, parts)}).min(axis=1).to_numpy()
        found[name] = (weakest - unlinked[months]).clip(0)
    found |= _pandas_active(sales, reds, firms)
    found |= _pandas_buyers(sales, reds, firms, sums[0, 12] - unlinked[12])
    gone = per_firm(cancelled[cancelled["age"] < 12], "amount")
    trade = gone + per_firm(sales[sales["age"] < 12], "gross")
    found["cancelled_share_12m_bp"] = (gone * 10_000 // trade.clip(1)).clip(0, MOST_CANCELLED_BP)
    return {name: found[name] for name in COLUMNS}


def _pandas_reversed(positive: Table, negative: Table) -> tuple[Table, Table]:
    named = negative[negative["red_of"].notna()].drop(columns="number").rename(columns={"red_of": "number"})
    linked = named.groupby([*KEY, "age"], as_index=False)["amount"].sum()
    sums = linked.groupby(KEY, as_index=False)["amount"].sum().rename(columns={"amount": "red"})
    rows = positive.merge(sums, on=KEY, how="left")
    touched = rows[rows["red"].notna()].sort_values(["age", "net"])
    before = touched.groupby(KEY)["net"].cumsum() - touched["net"]
    taken = (touched["red"].astype("int64") - before).clip(lower=0)
    touched = touched.assign(taken=taken.where(taken < touched["net"], touched["net"]), gross=touched["net"])
    touched["net"] = touched["gross"] - touched["taken"]
    untouched = rows[rows["red"].isna()]
    columns = ["firm", "partner", "age", "net", "gross"]
    sales = pd.concat([untouched.assign(gross=untouched["net"])[columns], touched[columns]])
    used = touched.groupby(KEY, as_index=False)["taken"].sum()
    excess = linked.merge(used, on=KEY, how="left").sort_values("age", ascending=False)
    earlier = excess.groupby(KEY)["amount"].cumsum() - excess["amount"]
    spent = (excess["taken"].fillna(0).astype("int64") - earlier).clip(lower=0)
    excess["amount"] = (excess["amount"] - spent).clip(lower=0)
    loose = negative[negative["red_of"].isna()]
    columns = ["firm", "partner", "age", "amount"]
    return sales, pd.concat([loose[columns], excess.loc[excess["amount"] > 0, columns]])


def _pandas_active(sales: Table, reds: Table, firms: Table) -> dict[str, Table]:
    signed = pd.concat(
        [
            sales[["firm", "age"]].assign(amount=sales["net"]),
            reds[["firm", "age"]].assign(amount=-reds["amount"]),
        ]
    )
    signed = signed[(signed["age"] >= 0) & (signed["age"] < MONTHS)]
    months = signed.groupby(["firm", "age"], as_index=False)["amount"].sum()
    months = months[months["amount"] > 0]
    found = {
        f"active_months_{length}m": months[months["age"] < length].groupby("firm").size().reindex(firms, fill_value=0)
        for length in (12, 24, 36)
    }
    found["months_since_sale"] = months.groupby("firm")["age"].min().reindex(firms, fill_value=MONTHS)
    return {name: values.to_numpy().astype("int64") for name, values in found.items()}


def _pandas_buyers(sales: Table, reds: Table, firms: Table, kept: Table) -> dict[str, Table]:
    window = sales[(sales["age"] >= 0) & (sales["age"] < 24)]
    window = window.assign(
        raw=window["net"].where(window["age"] < 12, 0), prior=window["net"].where(window["age"] >= 12, 0)
    )
    both = window.groupby(["firm", "partner"])[["raw", "prior"]].sum()
    off = reds[reds["age"] < 24]
    off = off.assign(red=off["amount"].where(off["age"] < 12, 0), later=off["amount"].where(off["age"] >= 12, 0))
    off = off.groupby(["firm", "partner"])[["red", "later"]].sum().reindex(both.index, fill_value=0)
    both = both.assign(net=both["raw"] - off["red"], before=both["prior"] - off["later"]).reset_index()
    ranked = both.sort_values("raw", ascending=False)
    top5 = ranked.groupby("firm").head(5).groupby("firm")["raw"].sum().reindex(firms, fill_value=0).to_numpy()
    top1 = both.groupby("firm")["raw"].max().reindex(firms, fill_value=0).to_numpy()
    repeat = both[both["before"] > 0]
    repeat = repeat.assign(net=repeat["net"].clip(lower=0)).groupby("firm")["net"].sum()
    count = both[both["net"] >= LEAST_PARTNER_FEN].groupby("firm").size()
    return {
        "buyers_12m": count.reindex(firms, fill_value=0).to_numpy(),
        "sales_less_top1_12m_fen": (kept - ((2 * top1 - kept).clip(0) + 3) // 4).clip(0),
        "sales_less_top5_12m_fen": (kept - ((2 * top5 - kept).clip(0) + 3) // 4).clip(0),
        "repeat_sales_12m_fen": repeat.reindex(firms, fill_value=0).to_numpy(),
    }


# --------------------------------------------------------------------------------------------------------------- duckdb


def with_duckdb(given: Given) -> Callable[[], pl.DataFrame]:
    """One SQL statement over duckdb's own tables, two threads."""
    connection = duckdb.connect()
    connection.execute("SET threads = 2")
    for name in ("invoices", "members", "firms"):
        connection.register("arrow", getattr(given, name).to_arrow())
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM arrow")  # noqa: S608  (names are the three above)
        connection.unregister("arrow")
    connection.execute("CREATE MACRO zero(amount) AS coalesce(amount, 0)")
    statement = _sql(AS_OF)
    return lambda: pl.DataFrame(connection.sql(statement).to_arrow_table())


def _sql(as_of: date) -> str:
    stretches = ", ".join(f"sum(net) FILTER (age BETWEEN {a} AND {b - 1}) AS s{a}_{b}" for a, b in stretches_of())
    unlinked = ", ".join(f"sum(amount) FILTER (age < {months}) AS u{months}" for months in WINDOWS)
    active = ", ".join(f"count(*) FILTER (age < {months}) AS active_months_{months}m" for months in (12, 24, 36))
    windows = ", ".join(f"greatest(zero(s0_{m}) - zero(u{m}), 0)::BIGINT AS sales_{m}m_fen" for m in WINDOWS)
    weakest = ", ".join(
        "greatest(least("
        + ", ".join(f"zero(s{a}_{b})" for a, b in parts_of(months, parts))
        + f") - zero(u{months}), 0)::BIGINT AS {name}"
        for name, (months, parts) in PARTS.items()
    )
    return _SQL.format(
        last=month_number(as_of) - 1,
        months=MONTHS,
        least=LEAST_PARTNER_FEN,
        most=MOST_CANCELLED_BP,
        stretches=stretches,
        unlinked=unlinked,
        active=active,
        windows=windows,
        weakest=weakest,
    )


_SQL = """
WITH of_members AS (SELECT i.* FROM invoices i ANTI JOIN members m USING (uscc, counterparty_id)),
rows AS (
    SELECT uscc AS firm, counterparty_id AS partner, invoice_no AS number, red_of, is_void, net_fen AS net,
           {last} - (year(issued_on) * 12 + month(issued_on) - 1) AS age
    FROM of_members WHERE uscc <> counterparty_id
),
positive AS (SELECT * FROM rows WHERE NOT is_void AND net > 0),
negative AS (SELECT *, -net AS amount FROM rows WHERE NOT is_void AND net < 0),
linked AS (
    SELECT firm, partner, red_of AS number, age, sum(amount) AS amount
    FROM negative WHERE red_of IS NOT NULL GROUP BY ALL
),
sums AS (SELECT firm, partner, number, sum(amount) AS red FROM linked GROUP BY ALL),
touched AS (
    SELECT firm, partner, number, age, net,
           least(greatest(red - (sum(net) OVER (PARTITION BY firm, partner, number ORDER BY age, net
                                               ROWS UNBOUNDED PRECEDING) - net), 0), net) AS taken
    FROM positive JOIN sums USING (firm, partner, number)
),
sales AS (
    SELECT firm, partner, age, net, net AS gross FROM positive ANTI JOIN sums USING (firm, partner, number)
    UNION ALL SELECT firm, partner, age, net - taken, net FROM touched
),
used AS (SELECT firm, partner, number, sum(taken) AS used FROM touched GROUP BY ALL),
excess AS (
    SELECT firm, partner, age,
           greatest(amount - greatest(zero(used) - (sum(amount) OVER (PARTITION BY firm, partner, number
                                                    ORDER BY age DESC ROWS UNBOUNDED PRECEDING) - amount), 0), 0)
           AS amount
    FROM linked LEFT JOIN used USING (firm, partner, number)
),
reds AS (
    SELECT firm, partner, age, amount FROM negative WHERE red_of IS NULL
    UNION ALL SELECT * FROM excess WHERE amount > 0
),
cancelled AS (
    SELECT firm, sum(amount) AS cancelled FROM (
        SELECT firm, age, net AS amount FROM rows WHERE is_void AND net > 0
        UNION ALL SELECT firm, age, amount FROM negative
    ) WHERE age < 12 GROUP BY firm
),
sold AS (SELECT firm, sum(gross) FILTER (age < 12) AS gross, {stretches} FROM sales GROUP BY firm),
off AS (SELECT firm, {unlinked} FROM reds GROUP BY firm),
active_months AS (
    SELECT firm, age FROM (
        SELECT firm, age, net AS amount FROM sales UNION ALL SELECT firm, age, -amount FROM reds
    ) WHERE age BETWEEN 0 AND {months} - 1 GROUP BY firm, age HAVING sum(amount) > 0
),
active AS (SELECT firm, {active}, min(age) AS months_since_sale FROM active_months GROUP BY firm),
raw AS (
    SELECT firm, partner, zero(sum(net) FILTER (age < 12)) AS raw, zero(sum(net) FILTER (age >= 12)) AS prior
    FROM sales WHERE age BETWEEN 0 AND 23 GROUP BY firm, partner
),
red AS (
    SELECT firm, partner, zero(sum(amount) FILTER (age < 12)) AS red, zero(sum(amount) FILTER (age >= 12)) AS red_prior
    FROM reds WHERE age < 24 GROUP BY firm, partner
),
buyers AS (
    SELECT firm, raw, raw - zero(red) AS net, prior - zero(red_prior) AS before,
           row_number() OVER (PARTITION BY firm ORDER BY raw DESC) AS place
    FROM raw LEFT JOIN red USING (firm, partner)
),
breadth AS (
    SELECT firm, max(raw) AS top1, sum(raw) FILTER (place <= 5) AS top5, count(*) FILTER (net >= {least}) AS buyers_12m,
           sum(greatest(net, 0)) FILTER (before > 0) AS repeat
    FROM buyers GROUP BY firm
),
whole AS (
    SELECT *, zero(s0_12) - zero(u12) AS kept, zero(cancelled) + zero(gross) AS trade
    FROM (SELECT uscc AS firm FROM firms) LEFT JOIN sold USING (firm) LEFT JOIN off USING (firm)
    LEFT JOIN cancelled USING (firm)
    LEFT JOIN active USING (firm) LEFT JOIN breadth USING (firm)
)
SELECT firm AS uscc, {windows}, {weakest},
       zero(active_months_12m) AS active_months_12m, zero(active_months_24m) AS active_months_24m,
       zero(active_months_36m) AS active_months_36m, coalesce(months_since_sale, {months}) AS months_since_sale,
       zero(buyers_12m) AS buyers_12m,
       greatest(kept - (greatest(2 * zero(top1) - kept, 0) + 3) // 4, 0)::BIGINT AS sales_less_top1_12m_fen,
       greatest(kept - (greatest(2 * zero(top5) - kept, 0) + 3) // 4, 0)::BIGINT AS sales_less_top5_12m_fen,
       zero(repeat)::BIGINT AS repeat_sales_12m_fen,
       CASE WHEN trade > 0 THEN least(zero(cancelled)::BIGINT * 10000 // trade::BIGINT, {most}) ELSE 0 END::BIGINT
           AS cancelled_share_12m_bp
FROM whole ORDER BY firm
"""
