"""Why this limit: reasons in CNY, from the numbers that decided, in Chinese and English, with stable codes.

The reason of a feature group is what the firm would gain if that group stood at its next better reference, all else
as it is: the limit there minus the limit. Model, limit and references are monotone, so a reason is never negative and
a worse value never gets a better one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import polars as pl

from scoring.catalogue import CATALOGUE, MODEL_INPUTS, SEEN
from scoring.eligibility import FAIL, UNKNOWN
from scoring.limit import BOUNDS
from scoring.policy import Policy

FEN_PER_CNY = 100


@dataclass(frozen=True)
class Group:
    """Features that are explained together, because one action of the firm moves them together."""

    name: str
    code: str
    zh: str
    en: str


GROUPS = (
    Group("sales", "SALES_LEVEL", "开票销售额偏低", "invoiced sales are low"),
    Group("steadiness", "SALES_STEADINESS", "销售不够平稳", "sales are uneven or interrupted"),
    Group("buyers", "BUYER_BREADTH", "客户数量少或集中度高", "few buyers, or much depends on the largest"),
    Group("purchases", "PURCHASES", "采购不够持续或供应商少", "purchases are interrupted or from few suppliers"),
    Group("cancelled", "CANCELLED_SALES", "作废红冲占比偏高", "many sales were voided or reversed"),
    Group("tax", "TAX_AND_DECLARED_SALES", "纳税额或申报销售额偏低", "taxes paid or sales declared are low"),
    Group("tax_conduct", "TAX_CONDUCT", "纳税信用、逾期或欠税", "taxpayer rating, late filing or arrears"),
    Group("social", "SOCIAL_INSURANCE", "参保人数偏少或欠缴", "few insured persons, or arrears"),
    Group("records", "PUBLIC_RECORDS", "存在负面公共记录", "negative public records"),
    Group("points", "INNOVATION_POINTS", "创新积分未达下一档", "innovation points are below the next step"),
)
"""The groups that cost a firm limit. Scope, debts, need and feeds speak through rules and bounds instead."""

References = Mapping[str, Sequence[float]]
"""Rising reference values of each model input, from the model's training data (deciles)."""

GATES = {
    "PD_GATE": ("风险水平超过产品上限", "the upper default probability is above the product's bound"),
    "RATE_GATE": ("保本利率超过产品上限", "the break-even rate is above the product's bound"),
    "BELOW_MINIMUM": ("测算额度低于产品起点", "the amount is below the product's minimum"),
}


def improved(frame: pl.DataFrame, group: Group, references: References, policy: Policy) -> pl.DataFrame:
    """The same firms with one group at its next better reference; values beyond the best reference stay.

    A value that is not known stays unknown in what it decides by itself, but is improved to the worst reference in
    the model: supplying it could not give less.
    """
    if group.name == "points":
        return _points_improved(frame, policy)
    changes = [
        _next_better(feature.name, tuple(references.get(feature.name, ())), more=feature.better == "more")
        for feature in MODEL_INPUTS
        if feature.group == group.name
    ]
    after = frame.with_columns(changes)
    if group.name == "tax":
        gained = pl.col("tax_paid_24m_fen") - frame["tax_paid_24m_fen"]
        filed = pl.col("tax_filings_feed") == "complete"
        after = after.with_columns(
            tax_paid_complete_24m_fen=pl.col("tax_paid_complete_24m_fen") + pl.when(filed).then(gained).otherwise(0)
        )
    return after


@lru_cache(maxsize=1024)  # to write them anew took a tenth of one firm's decision
def _next_better(name: str, references: tuple[float, ...], *, more: bool) -> pl.Expr:
    value = pl.col(name)
    ordered = sorted(references, reverse=more)
    chain = pl.when(pl.lit(value=False)).then(value)
    # Best first: the last branch that still holds is the nearest better one, so the nearest must be asked first.
    for reference in reversed(ordered):
        better = value < reference if more else value > reference
        chain = chain.when(better | value.is_null()).then(pl.lit(int(reference), pl.Int64))
    return chain.otherwise(value).alias(name)


def _points_improved(frame: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    share = pl.col("points_share_bp")
    chain = pl.when(pl.lit(value=False)).then(share)
    for threshold in policy.points_steps:
        chain = chain.when(share < threshold).then(pl.lit(threshold, pl.Int64))
    return frame.with_columns(chain.otherwise(share).alias("points_share_bp"))


def reasons_json(
    policy: Policy, answers: pl.DataFrame, binding: pl.Series, limit_fen: pl.Series, gains_fen: Mapping[str, pl.Series]
) -> pl.Series:
    """One JSON list of `{code, cny, zh, en}` per row.

    Rules that stand in the way come first, then what bound the limit, the groups by CNY, and the conditions that the
    bank must still clear.

    Args:
        policy: whose rules were put.
        answers: `eligibility.Verdicts.answers`.
        binding: code of what bound the limit.
        limit_fen: the limit if the rules alone did not stand in the way.
        gains_fen: group code → what its next better reference would add.

    Returns:
        String series `reasons`; `cny` is null for rules, the amount that binds for bounds, the gain for groups.
    """
    sentences = {group.code: (group.zh, group.en) for group in GROUPS}
    bounds = {bound.code: (f"额度由{bound.zh}决定", f"the limit is set by {bound.en}") for bound in BOUNDS} | GATES
    columns = [answers[code].to_list() for code in answers.columns]
    gains = [(code, series.to_list()) for code, series in gains_fen.items()]
    rules = {rule.code: rule for rule in policy.rules}
    lists: list[str] = []
    for row, (bound, limit) in enumerate(zip(binding.to_list(), limit_fen.to_list(), strict=True)):
        said: list[dict[str, object]] = []
        conditions: list[dict[str, object]] = []
        for code, answered in zip(answers.columns, columns, strict=True):
            if answered[row] == FAIL:
                said.append(_reason(code, None, rules[code].failed.zh, rules[code].failed.en))
            elif answered[row] == UNKNOWN:
                spoken = said if rules[code].condition is None else conditions
                spoken.append(_reason(code, None, rules[code].unknown.zh, rules[code].unknown.en))
        said.append(_reason(bound, limit, *bounds[bound]))
        ranked = sorted(
            ((series[row], code) for code, series in gains if series[row] > 0), key=lambda gain: (-gain[0], gain[1])
        )
        said.extend(_reason(code, gain, *sentences[code]) for gain, code in ranked)
        said.extend(conditions)
        lists.append(json.dumps(said, ensure_ascii=False, separators=(",", ":")))
    return pl.Series("reasons", lists, dtype=pl.String)


def _reason(code: str, fen: int | None, zh: str, en: str) -> dict[str, object]:
    return {"code": code, "cny": None if fen is None else fen // FEN_PER_CNY, "zh": zh, "en": en}


GROUPLESS = {feature.group for feature in CATALOGUE.values() if feature.use == "model"} - {
    group.name for group in GROUPS
}
assert not GROUPLESS, f"model inputs without a reason group: {sorted(GROUPLESS)}"
assert all(not feature.name.endswith(SEEN) for feature in MODEL_INPUTS)
