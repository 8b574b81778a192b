"""What invoices show: sales and purchases as of a day, monotone in facts.

A sale counts for what is left of it: a valid positive invoice less the red letters that name it (`red_of`), never
below zero. Red letters that name no known invoice, and what exceeds the invoice they name, are collected as U and
subtracted wherever a sum is taken. So every cell N[month, buyer] is at least zero, adding a sale raises one cell (or
lowers U), and voiding or reversing one lowers it. Buyers of the same group, and the firm itself, are left out.

All arithmetic is on whole fen; nothing here depends on how many firms are computed at once.
"""

from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from data_contracts.sources import INVOICES, Sources
from scoring.calendar import age_in_months
from scoring.feeds import heard, latest

MONTHS = 36
LEAST_PARTNER_FEN = 100_000
"""jifen default: a buyer or supplier counts from 1,000 CNY net in twelve months."""
MOST_CANCELLED_BP = 5_000
"""Above one half a wash pair would lower the share, so the share stops there (fact_monotone §2)."""

Amounts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ledger:
    """One side of a park's invoices as of a day, `firm` being the row of the enterprise in the feature frame.

    Attributes:
        sales: `firm`, `partner` (code), `age` (completed months, -1 the current one), `net` of valid positive invoices
            after their own red letters, `gross_net` before them.
        reds: `firm`, `partner`, `age`, `amount` >= 0 of red letters that lowered no invoice: U.
        cancelled: `firm`, `age`, `amount` of void positive and of all valid negative invoices.
    """

    sales: pl.DataFrame
    reds: pl.DataFrame
    cancelled: pl.DataFrame


def ledgers(sources: Sources, firms: pl.DataFrame, members: pl.DataFrame, as_of: date) -> tuple[Ledger, Ledger]:
    """What the firms in `firms` sold and bought, by invoices known by `as_of`; partners have one code on both sides.

    Args:
        sources: checked facts.
        firms: `uscc` and `firm`, the row number.
        members: `firm` and `counterparty_id` of related parties, left out of trade as the firm itself is.
        as_of: facts known later are not seen.
    """
    invoices = latest(heard(sources, "invoices", as_of), INVOICES.key).join(firms, on="uscc", how="inner")
    invoices = invoices.filter(pl.col("counterparty_id") != pl.col("uscc"))
    if members.height:
        invoices = invoices.join(members, on=["firm", "counterparty_id"], how="anti")
    rows = invoices.select(
        "firm",
        "direction",
        "invoice_no",
        "red_of",
        "is_void",
        partner=pl.col("counterparty_id").cast(pl.Categorical).to_physical(),
        age=age_in_months(pl.col("issued_on"), as_of),
        net=pl.col("net_fen"),
    )
    return _ledger(rows.filter(pl.col("direction") == "out")), _ledger(rows.filter(pl.col("direction") == "in"))


def _ledger(rows: pl.DataFrame) -> Ledger:
    valid = rows.filter(~pl.col("is_void"))
    positive = valid.filter(pl.col("net") > 0)
    negative = valid.filter(pl.col("net") < 0)
    sales, reds = _reversed(positive, negative)
    void = rows.filter(pl.col("is_void"), pl.col("net") > 0)
    cancelled = pl.concat(
        [void.select("firm", "age", amount="net"), negative.select("firm", "age", amount=-pl.col("net"))]
    )
    return Ledger(sales, reds, cancelled)


def _reversed(positive: pl.DataFrame, negative: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take each linked red letter off the invoice it names; what is left over is U.

    Several invoices may share a number, a firm and a partner; they are reversed from the latest back. Red letters are
    used up from the oldest on, so that those that exceed fall into the most windows. Each keeps its own month: were all
    dated with the latest, one more red letter would clear the months of the others and so help.
    """
    named = ["firm", "partner", "number"]
    linked = (
        negative.filter(pl.col("red_of").is_not_null())
        .group_by("firm", "partner", "age", number="red_of")
        .agg(amount=-pl.col("net").sum())
    )
    loose = negative.filter(pl.col("red_of").is_null()).select("firm", "partner", "age", amount=-pl.col("net"))
    whole = positive.select("firm", "partner", "age", net="net", gross_net="net")
    if linked.height == 0:
        return whole, loose
    numbered = positive.with_columns(number=pl.col("invoice_no"))
    sums = linked.group_by(named).agg(red=pl.col("amount").sum())
    touched = numbered.join(sums, on=named, how="inner").sort(*named, "age", "net")
    before = pl.col("net").cum_sum().over(named) - pl.col("net")
    taken = pl.min_horizontal(pl.max_horizontal(pl.col("red") - before, 0), "net")
    touched = touched.with_columns(taken=taken)
    untouched = numbered.join(sums, on=named, how="anti")
    sales = pl.concat(
        [
            untouched.select("firm", "partner", "age", "net", gross_net="net"),
            touched.select("firm", "partner", "age", net=pl.col("net") - pl.col("taken"), gross_net="net"),
        ]
    )
    used = touched.group_by(named).agg(used=pl.col("taken").sum())
    ordered = linked.join(used, on=named, how="left").sort(*named, "age", descending=[False, False, False, True])
    before = pl.col("amount").cum_sum().over(named) - pl.col("amount")
    excess = (
        ordered.with_columns(left=pl.max_horizontal(pl.col("used").fill_null(0) - before, 0))
        .select("firm", "partner", "age", amount=(pl.col("amount") - pl.col("left")).clip(lower_bound=0))
        .filter(pl.col("amount") > 0)
    )
    return sales, pl.concat([loose, excess.select(loose.columns)])


def monthly(rows: pl.DataFrame, amount: str, firms: int) -> Amounts:
    """Sums by firm and completed month: (firms, 36), column 0 the last completed month. Other months are left out."""
    table = np.zeros((firms, MONTHS), dtype=np.int64)
    cells = (
        rows.filter(pl.col("age").is_between(0, MONTHS - 1))
        .group_by(cell=pl.col("firm").cast(pl.Int64) * MONTHS + pl.col("age"))
        .agg(pl.col(amount).sum())
    )
    table.reshape(-1)[cells["cell"].to_numpy()] = cells[amount].to_numpy()
    return table


def since(rows: pl.DataFrame, amount: str, firms: int, months: int) -> Amounts:
    """Sums by firm over the window of `months` completed months and the current, unfinished one: (firms,)."""
    total = np.zeros(firms, dtype=np.int64)
    sums = rows.filter(pl.col("age") < months).group_by("firm").agg(pl.col(amount).sum())
    total[sums["firm"].to_numpy()] = sums[amount].to_numpy()
    return total


def _first(table: Amounts, start: int, stop: int) -> Amounts:
    """Sum of months `start` to `stop` - 1, column by column."""
    total = np.zeros(table.shape[0], dtype=np.int64)
    for age in range(start, stop):
        total += table[:, age]
    return total


def _positive(amounts: Amounts) -> Amounts:
    return np.maximum(amounts, 0)


def _weakest(table: Amounts, months: int, parts: int) -> Amounts:
    """The weakest of `parts` equal stretches of the last `months` months."""
    length = months // parts
    weakest = _first(table, 0, length)
    for part in range(1, parts):
        weakest = np.minimum(weakest, _first(table, part * length, (part + 1) * length))
    return weakest


def sales_features(out: Ledger, firms: int) -> dict[str, Amounts]:
    """The features of `catalogue.SALES` that need no partner, and the amounts behind them: name -> (firms,)."""
    table = monthly(out.sales, "net", firms)
    unlinked = {months: since(out.reds, "amount", firms, months) for months in (3, 6, 12, 24, 36)}
    active = (table - monthly(out.reds, "amount", firms)) > 0
    found = {
        f"sales_{months}m_fen": _positive(_first(table, 0, months) - unlinked[months]) for months in (3, 6, 12, 24, 36)
    }
    found["weaker_half_12m_fen"] = _positive(_weakest(table, 12, 2) - unlinked[12])
    found["weakest_quarter_12m_fen"] = _positive(_weakest(table, 12, 4) - unlinked[12])
    found["weaker_year_24m_fen"] = _positive(_weakest(table, 24, 2) - unlinked[24])
    for months in (12, 24, 36):
        found[f"active_months_{months}m"] = active[:, :months].sum(axis=1).astype(np.int64)
    found["months_since_sale"] = np.where(active.any(axis=1), active.argmax(axis=1), MONTHS).astype(np.int64)
    found["unlinked_red_12m_fen"] = unlinked[12]
    return found


def cancelled_share(out: Ledger, firms: int) -> Amounts:
    """(V + R) / (V + R + P) over twelve months and the current one, in bp, stopped at one half; 0 without any trade."""
    cancelled = since(out.cancelled, "amount", firms, 12)
    trade = cancelled + since(out.sales, "gross_net", firms, 12)
    share = pl.DataFrame({"part": cancelled, "whole": trade}).select(
        pl.when(pl.col("whole") > 0)
        .then(pl.col("part").cast(pl.Int128) * 10_000 // pl.col("whole"))
        .otherwise(0)
        .clip(0, MOST_CANCELLED_BP)
        .cast(pl.Int64)
    )
    return share.to_series().to_numpy()


def by_partner(side: Ledger) -> pl.DataFrame:
    """Per firm and partner: `net` of twelve months, `prior` of the twelve before, `raw` of twelve without U.

    A partner's own unlinked red letters come off its net, so a wash pair inside one partner changes nothing.
    """
    recent = pl.col("age").is_between(0, 11)
    window = side.sales.filter(pl.col("age").is_between(0, 23))
    sold = window.group_by("firm", "partner").agg(
        raw=pl.col("net").filter(recent).sum(), raw_prior=pl.col("net").filter(~recent).sum()
    )
    red = (
        side.reds.filter(pl.col("age") < 24)
        .group_by("firm", "partner")
        .agg(
            red=pl.col("amount").filter(pl.col("age") < 12).sum(),
            red_prior=pl.col("amount").filter(pl.col("age") >= 12).sum(),
        )
    )
    both = sold.join(red, on=["firm", "partner"], how="left")
    return both.select(
        "firm",
        "partner",
        "raw",
        net=pl.col("raw") - pl.col("red").fill_null(0),
        prior=pl.col("raw_prior") - pl.col("red_prior").fill_null(0),
    )


def partner_features(out: Ledger, partners: pl.DataFrame, firms: int) -> dict[str, pl.Series]:
    """Breadth and concentration of buyers: name -> (firms,).

    With S the sales of twelve months less U, and T the sum over the k largest buyers before U, the
    concentration-adjusted sales are (S - ½·(T - S/2)⁺)⁺; the deduction is rounded up, against the firm. U comes off S
    inside the deduction too: otherwise a wash pair with a small buyer would lower the deduction and help.
    """
    per_firm = partners.group_by("firm").agg(
        total=pl.col("raw").sum(),
        top1=pl.col("raw").max(),
        top5=pl.col("raw").top_k(5).sum(),
        squares=pl.col("raw").cast(pl.Int128).pow(2).sum(),
        count=(pl.col("net") >= LEAST_PARTNER_FEN).sum().cast(pl.Int64),
        repeat=pl.col("net").clip(lower_bound=0).filter(pl.col("prior") > 0).sum(),
    )
    unlinked = since(out.reds, "amount", firms, 12)
    table = pl.DataFrame({"firm": np.arange(firms, dtype=np.uint32), "unlinked": unlinked})
    table = table.join(per_firm, on="firm", how="left", maintain_order="left").fill_null(0)

    def less(top: str) -> pl.Expr:
        kept = pl.col("total") - pl.col("unlinked")
        deduction = (2 * pl.col(top) - kept).clip(lower_bound=0)
        return (kept - (deduction + 3) // 4).clip(lower_bound=0)

    traded = pl.col("total") > 0
    found = table.select(
        buyers_12m="count",
        sales_less_top1_12m_fen=less("top1"),
        sales_less_top5_12m_fen=less("top5"),
        repeat_sales_12m_fen="repeat",
        top1_share_12m_bp=pl.when(traded).then(
            (pl.col("top1").cast(pl.Int128) * 10_000 // pl.col("total")).cast(pl.Int64)
        ),
        buyer_hhi_12m_bp=pl.when(traded).then(
            (pl.col("squares") * 10_000 // pl.col("total").cast(pl.Int128).pow(2)).cast(pl.Int64)
        ),
    )
    return found.to_dict(as_series=True)


def purchase_features(bought: Ledger, partners: pl.DataFrame, firms: int) -> dict[str, Amounts]:
    """Steadiness and breadth of purchases, and their sum for reports: name -> (firms,)."""
    table = monthly(bought.sales, "net", firms) - monthly(bought.reds, "amount", firms)
    suppliers = np.zeros(firms, dtype=np.int64)
    counts = partners.group_by("firm").agg(count=(pl.col("net") >= LEAST_PARTNER_FEN).sum().cast(pl.Int64))
    suppliers[counts["firm"].to_numpy()] = counts["count"].to_numpy()
    return {
        "purchase_months_12m": (table[:, :12] > 0).sum(axis=1).astype(np.int64),
        "suppliers_12m": suppliers,
        "purchases_12m_fen": _first(table, 0, 12),
    }


def round_trade(buyers: pl.DataFrame, suppliers: pl.DataFrame, firms: int) -> pl.Series:
    """Σ min(sold to c, bought from c) over sales of twelve months, in bp; null without sales: (firms,)."""
    sold = buyers.group_by("firm").agg(total=pl.col("raw").sum())
    both = buyers.join(suppliers.select("firm", "partner", bought="raw"), on=["firm", "partner"])
    back = both.group_by("firm").agg(back=pl.min_horizontal("raw", "bought").sum())
    table = pl.DataFrame({"firm": np.arange(firms, dtype=np.uint32)})
    table = table.join(sold, on="firm", how="left", maintain_order="left")
    table = table.join(back, on="firm", how="left", maintain_order="left")
    share = pl.col("back").fill_null(0).cast(pl.Int128) * 10_000 // pl.col("total")
    return table.select(pl.when(pl.col("total") > 0).then(share.cast(pl.Int64))).to_series()


def shown_sales(out: Ledger, firms: int, months_due: int) -> dict[str, Amounts | pl.Series]:
    """Figures for reports and rules without a promise: name -> (firms,).

    Args:
        out: the sales side.
        firms: how many rows.
        months_due: completed months after the last one whose filing is due; `sales_due_12m_fen` are the sales of the
            twelve months before them.
    """
    table = monthly(out.sales, "net", firms)
    recent = out.sales.filter(pl.col("age").is_between(0, 11))
    counts = np.zeros(firms, dtype=np.int64)
    found = recent.group_by("firm").agg(count=pl.len().cast(pl.Int64))
    counts[found["firm"].to_numpy()] = found["count"].to_numpy()
    year, before = _first(table, 0, 12), _first(table, 12, 24)
    squares = np.zeros(firms, dtype=np.float64)
    for age in range(12):
        squares += (table[:, age] / 1.0 - year / 12.0) ** 2
    shown = pl.DataFrame(
        {"count": counts, "year": year, "before": before, "deviation": np.sqrt(squares / 12.0)}
    ).select(
        mean=pl.when(pl.col("count") > 0).then(pl.col("year") // pl.col("count")),
        growth=pl.when(pl.col("before") > 0).then(
            ((pl.col("year") - pl.col("before")).cast(pl.Int128) * 10_000 // pl.col("before")).cast(pl.Int64)
        ),
        cv=pl.when(pl.col("year") > 0).then((pl.col("deviation") * 120_000 / pl.col("year")).floor().cast(pl.Int64)),
    )
    return {
        "invoices_out_12m": counts,
        "mean_invoice_fen": shown["mean"],
        "sales_growth_12m_bp": shown["growth"],
        "sales_cv_12m_bp": shown["cv"],
        "sales_due_12m_fen": _first(table, months_due, months_due + 12),
    }
