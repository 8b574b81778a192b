"""What filings, ratings, social insurance, debts, public records, certificates and statements show as of a day.

Each function takes checked facts and the firms of the frame, and gives one row per firm in the same order. Values are
those of the delivered rows, taken at their word; `features` masks what an incomplete feed cannot tell.
"""

from datetime import date
from fractions import Fraction

import polars as pl

from data_contracts.sources import APPLICANT, SOURCES, UNSECURED_KINDS, Sources
from scoring.calendar import (
    filings_due_until,
    first_day,
    marks_due_until,
    month_number,
    month_of,
    months_before,
)
from scoring.feeds import heard, latest

RATING_LEVELS = {"A": 4, "B": 3, "M": 2, "C": 1, "D": 0}
"""Order of the taxpayer grades; a grade that the list does not know yet has no level."""
FIVE_CLASSES = ("normal", "special_mention", "substandard", "doubtful", "loss")
LISTINGS = ("judgment_defaulter", "serious_violation", "tax_violation", "abnormal_operation", "enforcement")
"""Records that bar credit while they stand; fines and lawsuits only count."""
TECH_TAGS = ("hightech", "tech_sme", "innovative_sme", "srdi")
BALANCE_ITEMS = ("receivables", "inventory", "prepayments", "payables", "advances_received")


def current(sources: Sources, name: str, as_of: date) -> pl.DataFrame:
    """The rows of a source that stand as of a day: heard by then, corrections applied."""
    return latest(heard(sources, name, as_of), SOURCES[name].key)


def doubted_of(sources: Sources, name: str, as_of: date) -> pl.DataFrame:
    """`uscc` of the firms of whose rows of a source one is in quarantine, as far as known by `as_of`."""
    told = sources.doubts.filter(pl.col("source") == name, pl.col("known_on").is_null() | (pl.col("known_on") <= as_of))
    return told.select("uscc").unique()


def undoubted(sources: Sources, name: str, as_of: date) -> pl.DataFrame:
    """The rows that stand of the firms of which none is in quarantine.

    For favourable facts: the row in quarantine may be the correction that takes back what an earlier row says, so
    none of them counts.
    """
    return current(sources, name, as_of).join(doubted_of(sources, name, as_of), on="uscc", how="anti")


def _per_firm(firms: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    return firms.select("uscc").join(found, on="uscc", how="left", maintain_order="left")


def tax_features(sources: Sources, firms: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Taxes paid, sales declared, lateness, arrears, and due months for which no VAT return is there.

    Taxes count by the day their period ends, so that the window of 24 months up to the last quarter due holds two years
    of tax of those who file by month or quarter, and of those who file by year once the year's return is there: between
    its year's last quarter falling due and the return, one year. A firm that goes over from yearly to shorter periods
    has up to eleven months more in the window for a while. A period of more than a year counts only if it lies inside
    the window whole.
    Refunds are taken off the taxes of their kind over the whole window, in whichever filing they stand; more than was
    paid of a kind takes nothing off another.

    Args:
        sources: checked facts.
        firms: `uscc` and `established_on`; returns are due from the quarter after it.
        as_of: facts known later are not seen.
    """
    due = filings_due_until(as_of)
    last_month = month_number(due)
    filings = current(sources, "tax_filings", as_of)

    def within(months: int) -> pl.Expr:
        return (pl.col("period_from") >= first_day(last_month + 1 - months)) & (pl.col("period_to") <= due)

    paid = pl.when(pl.col("paid_on").is_not_null()).then("tax_fen").otherwise(0)
    a_year_at_most = pl.col("period_from") > pl.col("period_to").dt.offset_by("-1y")
    ends_within = pl.col("period_to").is_between(first_day(last_month - 23), due)
    counted = filings.filter(within(24) | (ends_within & a_year_at_most))
    kinds = counted.group_by("uscc", "tax_kind").agg(net=(paid - pl.col("refund_fen")).sum())
    taxes = kinds.group_by("uscc").agg(tax_paid_24m_fen=pl.col("net").clip(lower_bound=0).sum())
    recent = pl.col("period_to") >= months_before(as_of, 24)
    found = filings.group_by("uscc").agg(
        declared_sales_12m_fen=pl.col("declared_sales_fen").filter(within(12) & (pl.col("tax_kind") == "vat")).sum(),
        tax_late_days_24m=pl.col("late_days").filter(recent).max(),
        tax_arrears_fen=pl.col("arrears_fen").sum(),
    )
    told = _per_firm(firms, taxes).hstack(_per_firm(firms, found).drop("uscc"))
    filled = told.with_columns(pl.exclude("uscc").fill_null(0))
    return filled.with_columns(_unfiled_months(filings, firms, last_month)["unfiled_months_24m"])


def _unfiled_months(filings: pl.DataFrame, firms: pl.DataFrame, last_due: int) -> pl.DataFrame:
    """Due months of the last 24 that no VAT return covers: a return that was never filed is not a clean one.

    Returns whose periods overlap would hide a gap; they put the feed in doubt instead (`scoring.feeds`).
    """
    next_quarter = (month_of(pl.col("established_on")) // 3 + 1) * 3
    due = firms.select("uscc", start=pl.max_horizontal(next_quarter, pl.lit(last_due - 23)))
    returns = filings.filter(pl.col("tax_kind") == "vat").join(due, on="uscc")
    first = pl.max_horizontal(month_of(pl.col("period_from")), "start")
    last = pl.min_horizontal(month_of(pl.col("period_to")), pl.lit(last_due))
    covered = returns.group_by("uscc").agg(covered=(last - first + 1).clip(lower_bound=0).sum())
    needed = (pl.lit(last_due + 1) - pl.col("start")).clip(lower_bound=0)
    return due.join(covered, on="uscc", how="left", maintain_order="left").select(
        unfiled_months_24m=(needed - pl.col("covered").fill_null(0)).clip(lower_bound=0).cast(pl.Int64)
    )


def rating_features(sources: Sources, firms: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """The best rating of the two years before `as_of` as a level, and how many of them were D."""
    ratings = current(sources, "taxpayer_ratings", as_of)
    ratings = ratings.filter(pl.col("year").is_between(as_of.year - 2, as_of.year))
    level = pl.col("grade").replace_strict(RATING_LEVELS, default=None, return_dtype=pl.Int64)
    found = ratings.group_by("uscc").agg(
        taxpayer_rating_level=level.max(), taxpayer_d_years=(pl.col("grade") == "D").sum().cast(pl.Int64)
    )
    return _per_firm(firms, found).with_columns(pl.col("taxpayer_d_years").fill_null(0))


def insurance_features(sources: Sources, firms: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Person-months insured and the largest arrears, over the twelve months up to the last quarter marked."""
    last_month = month_number(marks_due_until(as_of))
    months = current(sources, "social_insurance", as_of)
    window = pl.col("month").is_between(first_day(last_month - 11), first_day(last_month))
    owed = pl.col("month") >= months_before(as_of, 12)
    found = months.group_by("uscc").agg(
        insured_months_12m=pl.col("headcount").filter(window).sum(),
        social_arrears_12m_fen=pl.col("arrears_fen").filter(owed).max(),
    )
    return _per_firm(firms, found).with_columns(pl.exclude("uscc").fill_null(0))


def debt_features(sources: Sources, firms: pl.DataFrame, members: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Overdue days, worst class and unsecured exposure over open debts in their latest report.

    Args:
        sources: checked facts.
        firms: `uscc` of the frame.
        members: `uscc` and `member`, the other members of its group; their debts count against the group.
        as_of: facts known later are not seen.
    """
    debts = current(sources, "debts", as_of).sort("as_of").unique(["uscc", "lender_id", "debt_id"], keep="last")
    open_debts = debts.filter(pl.col("closed_on").is_null())
    classes = {name: level for level, name in enumerate(FIVE_CLASSES)}
    per_firm = open_debts.group_by("uscc").agg(
        overdue_days_now=pl.col("overdue_days").max(),
        worst_five_class=pl.col("five_class").replace_strict(classes, return_dtype=pl.Int64).max(),
        existing_unsecured_fen=pl.max_horizontal("balance_fen", "limit_fen")
        .filter(pl.col("kind").is_in(UNSECURED_KINDS))
        .sum(),
    )
    group = (
        members.join(per_firm.select(member="uscc", amount="existing_unsecured_fen"), on="member")
        .group_by("uscc")
        .agg(group_existing_unsecured_fen=pl.col("amount").sum())
    )
    found = _per_firm(firms, per_firm).join(group, on="uscc", how="left", maintain_order="left")
    return found.with_columns(pl.exclude("uscc").fill_null(0))


def record_features(sources: Sources, firms: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Listings that stand, and everything listed in 36 months. A removal counts from its day."""
    records = current(sources, "public_records", as_of)
    stands = pl.col("removed_on").is_null() | (pl.col("removed_on") > as_of)
    found = records.group_by("uscc").agg(
        live_listings=(pl.col("kind").is_in(LISTINGS) & stands).sum().cast(pl.Int64),
        public_records_36m=(pl.col("listed_on") >= months_before(as_of, 36)).sum().cast(pl.Int64),
    )
    return _per_firm(firms, found).with_columns(pl.exclude("uscc").fill_null(0))


def certificate_features(sources: Sources, firms: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Is a certificate valid at `as_of`, and is that the applicant's own word alone? In doubt, none counts.

    Told of 专精特新 and of any of the technology tags.
    """
    held = undoubted(sources, "qualifications", as_of)
    held = held.filter(pl.col("granted_on") <= as_of, pl.col("valid_to") >= as_of)
    srdi, tech = pl.col("tag") == "srdi", pl.col("tag").is_in(TECH_TAGS)
    evidenced = pl.col("supplier") != APPLICANT
    found = held.group_by("uscc").agg(
        srdi_live=srdi.any(),
        srdi_own_word=srdi.any() & ~(srdi & evidenced).any(),
        tech_live=tech.any(),
        tech_own_word=tech.any() & ~(tech & evidenced).any(),
    )
    return _per_firm(firms, found).with_columns(pl.exclude("uscc").fill_null(value=False))


def working_capital_need(
    *,
    revenue_fen: int,
    profit_fen: int,
    expected_revenue_fen: int,
    cogs_fen: int,
    receivables_fen: int,
    inventory_fen: int,
    prepayments_fen: int,
    payables_fen: int,
    advances_received_fen: int,
    other_funds_fen: int,
) -> tuple[int, int]:
    """The regulator's working-capital amount W and the new loan it leaves room for, in whole fen, rounded down.

    With turnover days d = 360/n, n = sales or cost over the average balance:

        cycle = d_inventory + d_receivables - d_payables + d_prepayments - d_advances
        W   = sales · (1 - margin) · (1 + growth) · cycle / 360
        new = W - own funds - existing working-capital loans - other funds

    computed as an exact fraction. A cycle that is not positive is financed by suppliers: both are 0. Balances are
    averages of the year's begin and end; `other_funds_fen` is everything that W is reduced by.

    Raises:
        ValueError: revenue or cost of goods is not positive.

    Source: annex of 流动资金贷款管理暂行办法 (银监会令2010年第1号); kept by 金融监管总局令2024年第2号.
    """
    if revenue_fen <= 0 or cogs_fen <= 0:
        raise ValueError("the need is defined for positive revenue and cost only")
    cycle = Fraction(inventory_fen - payables_fen + prepayments_fen, cogs_fen)
    cycle += Fraction(receivables_fen - advances_received_fen, revenue_fen)
    if cycle <= 0:
        return 0, 0
    amount = (revenue_fen - profit_fen) * Fraction(expected_revenue_fen, revenue_fen) * cycle
    return max(int(amount // 1), 0), max(int((amount - other_funds_fen) // 1), 0)


def need_features(sources: Sources, firms: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """`working_capital_need_fen` from evidenced yearly statements, null without them, and `statements_doubted`.

    Evidenced are statements that an authority supplied, and audited ones that the applicant did not supply itself: its
    word that an auditor signed is no evidence. A statement does not say how many months it covers, so only those that
    end with the accounting year, on 31 December (会计法, article 11), are taken for yearly.

    Averages are of the last two years where both are there, else the last one; expected revenue defaults to the last,
    own and other funds to nothing. In doubt are the statements of a firm of which a row is in quarantine.
    """
    year_end = (pl.col("period_end").dt.month() == 12) & (pl.col("period_end").dt.day() == 31)
    signed = pl.col("audited") & (pl.col("supplier") != APPLICANT)
    evidenced = current(sources, "financial_statements", as_of).filter(
        (pl.col("supplier") == "authority") | signed,
        year_end,
        pl.col("period_end") > months_before(as_of, 36),
    )
    last = evidenced.group_by("uscc").agg(last_end=pl.col("period_end").max())
    values = (
        evidenced.join(last, on="uscc")
        .filter(pl.col("period_end") > pl.col("last_end").dt.offset_by("-18mo"))
        .sort("period_end")
        .group_by("uscc", "item", maintain_order=True)
        .agg(
            now=pl.col("value_fen").filter(pl.col("period_end") == pl.col("last_end")).last(),
            mean=pl.col("value_fen").tail(2).sum() // pl.col("value_fen").tail(2).len().cast(pl.Int64),
        )
    )
    needs: list[tuple[str, int]] = []
    for (uscc,), items in values.group_by("uscc", maintain_order=True):
        need = _need_of({row["item"]: row for row in items.iter_rows(named=True)})
        if need is not None:
            needs.append((str(uscc), need))
    found = pl.DataFrame(needs, schema={"uscc": pl.String, "working_capital_need_fen": pl.Int64}, orient="row")
    doubted = doubted_of(sources, "financial_statements", as_of)["uscc"]
    return _per_firm(firms, found).with_columns(statements_doubted=pl.col("uscc").is_in(doubted.implode()))


def _need_of(items: dict[str, dict[str, int | None]]) -> int | None:
    """The new-loan room of one firm from its items; None when an item that the formula needs is missing."""
    now = {item: values["now"] for item, values in items.items()}
    revenue, cogs, profit = now.get("revenue"), now.get("cogs"), now.get("profit")
    balances = {item: items[item]["mean"] for item in BALANCE_ITEMS if item in items}
    if (
        revenue is None
        or cogs is None
        or profit is None
        or revenue <= 0
        or cogs <= 0
        or len(balances) < len(BALANCE_ITEMS)
    ):
        return None
    expected = now.get("expected_revenue")
    _, room = working_capital_need(
        revenue_fen=revenue,
        profit_fen=profit,
        expected_revenue_fen=revenue if expected is None else expected,
        cogs_fen=cogs,
        other_funds_fen=(now.get("own_funds") or 0) + (now.get("other_funding") or 0),
        **{f"{item}_fen": amount or 0 for item, amount in balances.items()},
    )
    return room
