"""One decision as a banker reads it: the answer, what is still to be checked, how it came about, why, and the facts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from models.views import OUTCOMES, cny, percent, rate, table_of
from scoring.catalogue import CATALOGUE, FEEDS, SEEN, Feature
from scoring.conduct import FIVE_CLASSES, RATING_LEVELS
from scoring.eligibility import INELIGIBLE, REFER
from scoring.limit import BOUNDS
from scoring.policy import MOST_FEN, Policy
from scoring.reasons import GATES, GROUPS
from scoring.ruleset import Ruleset

REFERENCE_ONLY = (
    "额度与利率仅供参考：利率为保本测算，不是报价；银行独立审批。",
    "A reference, not an offer: the rate is the break-even of the calculation, and the bank's approval is separate.",
)
"""Stands under every limit that a person reads."""

KNOWN_FIGURES = (
    "公开数字对照 Known figures, CNY: 火炬积分贷 about 5,000,000 a firm over its first 30 (2023);",
    "  江苏、杭州滨江 about 3,000,000 a firm; 青岛首贷 290,000 lent of 500,000 asked.",
)
"""What a batch is set beside, so that a reader sees at once whether its level is out of the ordinary.

Source: 中国高新技术产业导报 2023-08-28; credit.zj.gov.cn 2023-11-27; a case of the Qingdao platform.
"""

TITLES = {
    "scope": ("企业", "The firm"),
    "sales": ("销售", "Sales"),
    "steadiness": ("平稳性", "Steadiness"),
    "buyers": ("客户", "Buyers"),
    "purchases": ("采购", "Purchases"),
    "cancelled": ("作废与红冲", "Voided and reversed sales"),
    "tax": ("纳税与申报", "Tax and declared sales"),
    "tax_conduct": ("纳税信用", "Tax conduct"),
    "social": ("社保", "Social insurance"),
    "records": ("公共记录", "Public records"),
    "debts": ("信贷", "Debts"),
    "need": ("资金需求", "Need for funds"),
    "points": ("创新积分", "Innovation points"),
    "feeds": ("数据完整性", "Data delivered"),
}
"""Group of features → its heading, in the order of the page."""

_STATES = {"complete": ("完整", "green"), "incomplete": ("不完整", "yellow"), "missing": ("缺失", "red")}
_MARKS = {
    INELIGIBLE: Text("不符合 bars", style="red"),
    REFER: Text("转人工 to a person", style="yellow"),
    "condition": Text("银行核实 bank checks", style="cyan"),
}
_CLASS_WORDS = ("正常", "关注", "次级", "可疑", "损失")
_TERMS = (
    (
        "可持续销售",
        "sustainable sales: after concentration, twice the weaker half, as declared",
        "sustainable_sales_fen",
    ),
    ("承载能力", "what sales and tax can carry, before risk and points", "capacity_fen"),
    ("风险与积分调整后", "after the cut for risk and the lift by points", "soft_fen"),
    ("流动资金需求", "need for working capital", "need_fen"),
    ("负债空间", "room that existing debt leaves", "debt_room_fen"),
    ("现金流额度", "by cash flow: the least of the three above", "cash_fen"),
    ("积分额度", "by innovation points alone", "points_fen"),
    ("产品上限", "cap of the product for a firm of this status", "status_cap_fen"),
    ("集团上限", "cap on related parties together, less what they have", "group_cap_fen"),
    ("申请金额", "amount asked", "asked_cap_fen"),
    ("取整前", "the larger of both, within every cap", "uncut_fen"),
    ("测算额度", "in whole steps; 0 below the product's minimum", "limit_fen"),
)


@dataclass(frozen=True)
class Earned:
    """Innovation points of one firm: the scale, and its row of `scoring.points.points`."""

    ruleset: Ruleset
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Explained:
    """One decision and all that explains it.

    Attributes:
        limit: its row of the limits file.
        terms: every term of the limit.
        facts: its row of the feature frame.
        name: of the enterprise.
        earned: its innovation points; None without a scale.
        caveats: what must be said beside the figures.
    """

    limit: Mapping[str, Any]
    terms: Mapping[str, Any]
    facts: Mapping[str, Any]
    name: str
    policy: Policy
    earned: Earned | None
    caveats: tuple[str, ...] = ()


def explanation(one: Explained) -> RenderableType:
    """The whole page; it fits 100 columns and uses more where there are more."""
    limit, policy = one.limit, one.policy
    reasons: list[dict[str, Any]] = json.loads(limit["reasons"])
    said = [Text(f"注意 note: {caveat}", style="yellow") for caveat in one.caveats]
    parts = [_answer(limit, one.name, policy), *said, _checks(reasons, policy), _ways(reasons, policy)]
    return Group(
        *(part for part in parts if part is not None),
        _terms(limit, one.terms),
        *([] if one.earned is None else _points(one.earned)),
        Text("事实 Facts", style="bold"),
        Columns(list(_facts(one.facts, reasons)), padding=(0, 2)),
        Text(
            f"decision {limit['decision_id']}   facts {limit['input_hash'][:16]}…\n"
            f"model {limit['model_version']}   policy {limit['policy_version']}",
            style="dim",
        ),
    )


def _answer(limit: Mapping[str, Any], name: str, policy: Policy) -> Panel:
    zh, style = OUTCOMES[limit["outcome"]]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    points = limit["innovation_points"]
    rows = [
        ("结论 Outcome", Text(f"{zh} {limit['outcome']}", style=f"bold {style}")),
        ("参考额度 Reference limit", Text(f"{cny(limit['limit_fen'])} CNY", style="bold")),
        (
            "资料补齐且无瑕疵时 If all turns out clean",
            Text(f"{cny(limit['conditional_limit_fen'])} CNY"),
        ),
        ("保本参考利率 Break-even rate", Text("-" if limit["rate_bp"] is None else f"{rate(limit['rate_bp'])} a year")),
        (
            "一年违约概率 PD in 12 months",
            Text(f"{percent(limit['pd_12m'])}, cautiously {percent(limit['pd_hi'])} 审慎上限"),
        ),
        ("等级 Grade, 评分 score", Text(f"{limit['grade']}, {limit['score']}")),
        ("创新积分 Innovation points", Text("-" if points is None else f"{points:.1f}")),
        ("基准日 As of, 有效期 valid until", Text(f"{limit['as_of']}, {limit['valid_until']}")),
    ]
    for words, value in rows:
        grid.add_row(words, value)
    title = Text(f"{name}  {limit['uscc']}  ·  {policy.title.zh} {policy.title.en}")
    return Panel(Group(grid, Text("\n".join(REFERENCE_ONLY), style="italic")), title=title, title_align="left")


def _checks(reasons: Sequence[Mapping[str, Any]], policy: Policy) -> Table | None:
    """What bars the way, what a person must look at, what the bank must still check; None where there is nothing."""
    rules = {rule.code: rule for rule in policy.rules}
    table = table_of("障碍与待核实 What stands in the way or is still to be checked", "", "原因", "reason")
    for reason in reasons:
        rule = rules.get(reason["code"])
        if rule is None:
            continue
        told = reason["zh"] == rule.failed.zh
        table.add_row(
            _MARKS[rule.on_fail if told else rule.on_unknown],
            reason["zh"],
            Text.assemble(reason["en"], (f"  {reason['code']}", "dim")),
        )
    return table if table.row_count else None


def _ways(reasons: Sequence[Mapping[str, Any]], policy: Policy) -> Table:
    """What set the amount, and what each group of facts would add at its next better reference."""
    rules = {rule.code for rule in policy.rules}
    bounds = {bound.code for bound in BOUNDS} | GATES.keys()
    table = table_of("额度原因 What sets the amount, and what would raise it", "CNY", "原因", "reason", right=(0,))
    for reason in reasons:
        if reason["code"] in rules:
            continue
        amount = f"{reason['cny']:,}" if reason["code"] in bounds else f"+{reason['cny']:,}"
        table.add_row(amount, reason["zh"], Text.assemble(reason["en"], (f"  {reason['code']}", "dim")))
    return table


def _terms(limit: Mapping[str, Any], terms: Mapping[str, Any]) -> Table:
    table = table_of("额度构成 How the amount came about", "项目", "term", "CNY", "", right=(2,))
    bound = next((one.column for one in BOUNDS if one.code == limit["binding"]), None)
    for zh, en, column in _TERMS:
        amount = terms[column]
        unbounded = amount is None or amount >= MOST_FEN
        binds = Text("◀ 决定 binds", style="bold") if column == bound else ""
        table.add_row(zh, en, "-" if unbounded else cny(amount), binds)
    if limit["binding"] in GATES:
        table.add_row(*GATES[limit["binding"]], "", Text("◀ 决定 binds", style="bold"))
    return table


def _points(earned: Earned) -> list[RenderableType]:
    """What each indicator earned, how many were delivered, and where the firm stands in the frozen cohort."""
    row, words = earned.row, {indicator.id: indicator for indicator in earned.ruleset.indicators}
    table = table_of(
        f"创新积分构成 How the innovation points came about ({row['innovation_points']:.2f} of {row['points_scale']})",
        *("points", "指标", "indicator", ""),
        right=(0,),
    )
    for one in row["points_contributions"]:
        indicator = words[one["indicator"]]
        table.add_row(f"{one['points']:.2f}", indicator.zh, indicator.en, Text(indicator.id, style="dim"))
    delivered = row["points_completeness_bp"] / 100
    position = row["points_cohort_position_bp"]
    stands = "无可比群体 no cohort to compare with"
    if position is not None:
        stands = f"不低于同期群体的 at or above {position / 100:.0f} % of the cohort"
    return [table, Text(f"指标填报率 indicators delivered {delivered:.0f} %; {stands}")]


def _facts(facts: Mapping[str, Any], reasons: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    gains = {reason["code"]: reason["cny"] for reason in reasons}
    codes = {group.name: group.code for group in GROUPS}
    for group, (zh, en) in TITLES.items():
        gain = gains.get(codes.get(group, ""))
        title = f"{zh} {en}" + (f"  (+{gain:,} CNY at the next better reference)" if gain else "")
        table = table_of(title, right=(2,))
        table.show_header = False
        table.add_column(width=28, overflow="fold")
        table.add_column(width=28, style="dim", no_wrap=True)
        table.add_column(width=30, justify="right")
        for feature in CATALOGUE.values():
            if feature.group == group:
                table.add_row(feature.zh, feature.name, shown(feature, facts))
        yield table


def shown(feature: Feature, facts: Mapping[str, Any]) -> Text:
    """A fact with its unit in words; of an unknown one, what the delivered rows show."""
    value = facts.get(feature.name)
    if value is not None:
        return Text.assemble(_with_unit(feature, value))
    seen = facts.get(feature.name + SEEN)
    shows = "" if seen is None else f" (已交付数据 delivered: {_with_unit(feature, seen)[0]})"
    return Text(f"未知 unknown{shows}", style="yellow")


def _with_unit(feature: Feature, value: Any) -> tuple[str, str]:  # noqa: ANN401  (a cell of the frame)
    """The words and their style."""
    if feature in FEEDS:
        zh, style = _STATES[value]
        return f"{zh} {value}", style
    if feature.name == "taxpayer_rating_level":
        return next(letter for letter, level in RATING_LEVELS.items() if level == value), ""
    if feature.name == "worst_five_class":
        return f"{_CLASS_WORDS[value]} {FIVE_CLASSES[value].replace('_', ' ')}", ""
    if feature.unit == "fen":
        return f"{cny(value)} CNY", ""
    if feature.unit == "bp":
        return f"{value / 100:,.2f} %", ""
    if feature.unit == "flag":
        return ("是 yes" if value else "否 no"), ""
    if feature.unit == "text":
        return str(value), ""
    words = {"days": " days 天", "months": " months 个月", "points": " points 分"}.get(feature.unit, "")
    return f"{value:,}{words}", ""
