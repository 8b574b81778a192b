"""The reference limit in whole fen: capacity that follows from cash flow, cut by risk, lifted by points, capped hard.

    S*     = min( concentration-adjusted sales, 2 · weaker half, declared sales where policy requires them )
    cash   = min( min( s_max·S*, max( s_0·S*, m(grade)·T ) ) · phi(pd_hi) · psi(points),  W,  d_max·S* - existing )
             0 if pd_hi > p_max or r_min > r_max
    limit  = floor_step( min( max(cash, points), hard caps ) ),  0 below the minimum

Each step is a non-decreasing function of every favourable amount and a non-increasing one of PD and existing debt, and
integer rounding is always down, so the limit keeps every promise that its inputs keep.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from scoring.policy import BP, MOST_FEN, Haircut, Policy, Uplift
from scoring.price import affordable
from scoring.rules import expression
from scoring.score import PPB, tax_multiple_bp

PD, PD_HI = "pd_ppb", "pd_hi_ppb"
"""Names of the PD columns, in parts per billion, that a frame to be sized must have beside its features."""
ASKED = "asked_fen"
"""The amount asked, null where none was named."""

HARD_CAPS = ("status_cap_fen", "group_cap_fen", "asked_cap_fen")
"""Columns of `sized` that a limit never exceeds, whatever the points."""


@dataclass(frozen=True)
class Bound:
    """One thing that can bind a limit: the column with its amount, its stable code and its words."""

    column: str
    code: str
    zh: str
    en: str


BOUNDS = (
    Bound("asked_cap_fen", "BOUND_ASKED", "申请金额", "the amount asked"),
    Bound("status_cap_fen", "BOUND_STATUS_CAP", "产品额度上限", "the product's cap for a firm of this status"),
    Bound("group_cap_fen", "BOUND_GROUP_CAP", "集团授信上限", "the cap on related parties together"),
    Bound("points_fen", "BOUND_POINTS", "创新积分额度", "the amount that innovation points alone give"),
    Bound("need_fen", "BOUND_NEED", "流动资金需求", "the need for working capital"),
    Bound("debt_room_fen", "BOUND_DEBT", "负债空间", "the room that existing debt leaves"),
    Bound("soft_fen", "BOUND_CAPACITY", "现金流承载能力", "what sales and tax can carry at this risk"),
)
"""What may bind, in the order in which ties are named."""


def share_of(amount: pl.Expr, bp: pl.Expr | int) -> pl.Expr:
    """`amount · bp / 10,000`, rounded down, Int64; the product is taken in 128 bits and kept below 10^14 fen."""
    factor = bp if isinstance(bp, pl.Expr) else pl.lit(bp, pl.Int128)
    product = amount.cast(pl.Int128) * factor.cast(pl.Int128) // BP
    return product.clip(0, MOST_FEN).cast(pl.Int64)


def haircut_bp(pd_hi_ppb: pl.Expr, haircut: Haircut) -> pl.Expr:
    """phi: the share of the capacity that counts at an upper PD; 0 beyond the table."""
    chain = pl.when(pd_hi_ppb.is_null()).then(0)
    for step in haircut.steps:
        chain = chain.when(pd_hi_ppb <= step.pd_hi_at_most_bp * (PPB // BP)).then(step.share_bp)
    return chain.otherwise(0).cast(pl.Int64)


def uplift_bp(points_share_bp: pl.Expr, uplift: Uplift) -> pl.Expr:
    """psi: what the soft terms are multiplied by; 10,000 below the table and where there are no points."""
    steps = [(step.points_share_at_least_bp, step.uplift_bp) for step in uplift.steps]
    return _from_below(points_share_bp, steps, otherwise=BP)


def points_amount_fen(policy: Policy) -> pl.Expr:
    """What innovation points alone give: 0 unless the branch is open and the firm's conduct is known to be clean."""
    branch = policy.points_branch
    if branch is None:
        return pl.lit(0, pl.Int64)
    opened = expression(branch.open_when).fill_null(value=False)
    clean = expression(branch.clean_when).fill_null(value=False)
    steps = [(step.points_share_at_least_bp, step.amount_fen) for step in branch.steps]
    return pl.when(opened & clean).then(_from_below(pl.col("points_share_bp"), steps, otherwise=0)).otherwise(0)


def sustainable_sales_fen(policy: Policy) -> pl.Expr:
    """S*: the least of concentration-adjusted sales, twice the weaker half, and declared sales where required."""
    terms = [pl.col("sales_less_top1_12m_fen"), 2 * pl.col("weaker_half_12m_fen")]
    if policy.limit.declared_sales_required:
        terms.append(pl.col("declared_sales_12m_fen"))
    return pl.min_horizontal(terms).clip(0, MOST_FEN)


def status_cap_fen(policy: Policy) -> pl.Expr:
    """The highest cap that the firm's status gives, at least the ordinary one."""
    caps = [
        pl.when(expression(cap.when).fill_null(value=False)).then(cap.cap_fen).otherwise(0)
        for cap in policy.limit.status_caps
    ]
    return pl.max_horizontal(pl.lit(policy.limit.ordinary_cap.value, pl.Int64), *caps).cast(pl.Int64)


def sized(frame: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Every term of the limit, and the limit: one row per row of `frame`, in its order.

    Args:
        frame: features, `points_share_bp` and the columns PD, PD_HI and ASKED.
        policy: the numbers in force.

    Returns:
        `sustainable_sales_fen`, `capacity_fen` (before phi and psi), `soft_fen`, `need_fen`, `debt_room_fen`,
        `cash_fen`, `points_fen`, the hard caps, `gate` (why cash is 0: PD_GATE, RATE_GATE or null), `branch` (cash or
        points), `uncut_fen` (before step and minimum) and `limit_fen`. Null caps do not bind.
    """
    limit = policy.limit
    existing = pl.col("existing_unsecured_fen").fill_null(0)
    required_above = limit.need.required_above.value if limit.need is not None else MOST_FEN
    need = (pl.col("working_capital_need_fen") - existing).clip(lower_bound=0).fill_null(required_above)
    # What is not evidenced falls to the amount that needs no statements; what is contradictory shows no need at all.
    need = pl.when("statements_doubted").then(0).otherwise(need)
    gate = (
        pl.when(pl.col(PD_HI) > limit.most_pd_hi.value * (PPB // BP))
        .then(pl.lit("PD_GATE"))
        .when(~affordable(pl.col(PD), policy.price))
        .then(pl.lit("RATE_GATE"))
    )
    yearly_tax = pl.col("tax_paid_complete_24m_fen") // 2
    terms = frame.select(
        PD,
        PD_HI,
        ASKED,
        "points_share_bp",
        existing=existing,
        sustainable_sales_fen=sustainable_sales_fen(policy),
        tax_term=share_of(yearly_tax, tax_multiple_bp(pl.col(PD), policy.grades)),
        need_fen=need if limit.need is not None else pl.lit(MOST_FEN, pl.Int64),
        points_fen=points_amount_fen(policy),
        status_cap_fen=status_cap_fen(policy),
        group_cap_fen=(limit.group_cap.value - pl.col("group_existing_unsecured_fen") - existing).clip(lower_bound=0),
        gate=gate,
    )
    sales = pl.col("sustainable_sales_fen")
    without_tax = share_of(sales, limit.sales_share_without_tax.value)
    terms = terms.with_columns(
        capacity_fen=pl.min_horizontal(
            share_of(sales, limit.most_sales_share.value), pl.max_horizontal(without_tax, "tax_term")
        ),
        debt_room_fen=(share_of(sales, limit.most_debt_share.value) - pl.col("existing")).clip(lower_bound=0),
        asked_cap_fen=pl.col(ASKED),
    )
    cut = share_of(pl.col("capacity_fen"), haircut_bp(pl.col(PD_HI), policy.haircut))
    terms = terms.with_columns(soft_fen=share_of(cut, uplift_bp(pl.col("points_share_bp"), policy.uplift)))
    flow = pl.min_horizontal("soft_fen", "need_fen", "debt_room_fen")
    terms = terms.with_columns(cash_fen=pl.when(pl.col("gate").is_null()).then(flow).otherwise(0))
    uncut = pl.min_horizontal(pl.max_horizontal("cash_fen", "points_fen"), *HARD_CAPS)
    stepped = uncut // limit.step.value * limit.step.value
    return terms.with_columns(
        branch=pl.when(pl.col("points_fen") > pl.col("cash_fen")).then(pl.lit("points")).otherwise(pl.lit("cash")),
        uncut_fen=uncut,
        limit_fen=pl.when(stepped >= limit.minimum.value).then(stepped).otherwise(0),
    )


def binding(policy: Policy) -> pl.Expr:
    """The code of what bound the limit in a frame made by `sized`.

    PD_GATE or RATE_GATE where risk closed the cash branch and points gave nothing, BELOW_MINIMUM where what was left
    was too small, else the bound whose amount the limit was cut to.
    """
    empty = pl.col("uncut_fen") < policy.limit.minimum.value
    chain = pl.when(empty & pl.col("gate").is_not_null()).then(pl.col("gate"))
    for bound in BOUNDS:
        reached = pl.col(bound.column) == pl.col("uncut_fen")
        if bound.column == "points_fen":
            reached = reached & (pl.col("branch") == "points")
        chain = chain.when(~empty & reached).then(pl.lit(bound.code))
    return chain.otherwise(pl.lit("BELOW_MINIMUM"))


def _from_below(value: pl.Expr, steps: Sequence[tuple[int, int]], otherwise: int) -> pl.Expr:
    """The amount of the highest step reached; `steps` rise in both parts."""
    chain = pl.when(value.is_null()).then(otherwise)
    for least, amount in reversed(steps):
        chain = chain.when(value >= least).then(amount)
    return chain.otherwise(otherwise).cast(pl.Int64)
