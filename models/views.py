"""What the risk officer's commands print: tables for people, in Chinese and English."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import polars as pl
from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from data_contracts.rules import Description
from models.development import Trained
from models.registry import Entry
from models.sources.folder import Folder
from models.validation import CONFIDENCE, Development
from scoring.catalogue import CATALOGUE, SEEN
from scoring.eligibility import ELIGIBLE, INELIGIBLE, REFER
from scoring.limit import BOUNDS
from scoring.policy import Policy
from scoring.reasons import GATES

OUTCOMES = {ELIGIBLE: ("可授信", "green"), REFER: ("转人工", "yellow"), INELIGIBLE: ("不符合", "red")}


def cny(fen: int | None) -> str:
    """Fen as CNY with separators; a dash for null."""
    return "-" if fen is None else f"{fen / 100:,.0f}"


def percent(share: float | None) -> str:
    """A share as per cent with two decimals; a dash for null."""
    return "-" if share is None else f"{share:.2%}"


def table_of(title: str, *columns: str, right: Sequence[int] = ()) -> Table:
    """An empty table; columns in `right` are aligned to the right."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place in right else "left")
    return table


def check_table(found: Folder) -> Table:
    """Rows read, good and quarantined per source, and why."""
    table = table_of(
        "数据检查 Data check", "source", "file", "read", "good", "quarantined", "duplicates", "why", right=(2, 3, 4, 5)
    )
    for report in found.reports.values():
        why = ", ".join(f"{rule} {count:,}" for rule, count in report.by_rule.items())
        table.add_row(
            report.source,
            report.file,
            f"{report.read:,}",
            f"{report.good:,}",
            f"{report.quarantined:,}",
            f"{report.duplicates:,}",
            why,
        )
    return table


def check_json(found: Folder) -> str:
    """The same as JSON, for programs."""
    reports = {name: {**vars(report), "by_rule": dict(report.by_rule)} for name, report in found.reports.items()}
    return json.dumps({"sources": reports, "warnings": found.warnings}, ensure_ascii=False, indent=1, default=list)


def contract_table(columns: Sequence[Description]) -> Table:
    """Every column of every source."""
    table = table_of("数据契约 Contracts", "source", "column", "type", "null", "allowed", "名称", "meaning")
    for one in columns:
        table.add_row(
            one.source, one.column, one.type, "yes" if one.nullable else "no", one.allowed, one.title, one.meaning
        )
    return table


def feature_table() -> Table:
    """The feature catalogue."""
    table = table_of("特征目录 Feature catalogue", "feature", "名称", "unit", "safer", "use", "null means", "formula")
    for feature in CATALOGUE.values():
        table.add_row(
            feature.name, feature.zh, feature.unit, feature.better or "-", feature.use, feature.null, feature.formula
        )
    return table


def development_view(trained: Trained) -> RenderableType:
    """How a challenger did beside its rivals, and the sentence that says which wins."""
    development = trained.development
    repeats = len(development.figures[0].metrics["auc"].values)
    table = table_of(
        f"重复嵌套交叉验证 Repeated nested cross-validation ({repeats} repeats, mean ± sd)",
        "model",
        *("AUC", "log loss", "KS", "PR-AUC", "Brier", "ECE"),
        right=range(1, 7),
    )
    for figures in development.figures:
        spread = figures.metrics
        table.add_row(
            figures.words,
            *(
                f"{spread[name].mean:.3f} ± {spread[name].sd:.3f}"
                for name in ("auc", "log_loss", "ks", "pr_auc", "brier", "ece")
            ),
        )
    rows = trained.dataset.defaulted
    lines = [
        f"loans {rows.size:,}, defaults {int(rows.sum()):,} ({rows.mean():.1%})"
        + "".join(f"; left out {count:,}: {why}" for why, count in trained.dataset.left_out.items() if count),
        f"{CONFIDENCE:.0%} interval of AUC: {_interval(development, 'auc')}; of log loss: {_interval(development, 'log_loss')}",
        f"certificate: {'holds' if development.certificate.holds else 'DOES NOT HOLD'} "
        f"({development.certificate.trees:,} trees, {development.certificate.pairs:,} pairs of leaves, "
        f"{development.certificate.coefficients:,} signs, {len(development.bag)} bag members)",
        *(f"warning: {warning}" for warning in trained.warnings),
    ]
    return Group(
        table, *map(Text, lines), Text(development.sentence, style="bold"), Text(development.sentence_zh, style="bold")
    )


def _interval(development: Development, name: str) -> str:
    interval = development.intervals[name]
    return f"{interval.low:.3f} to {interval.high:.3f}"


def models_table(entries: Sequence[Entry]) -> Table:
    """Registered models, oldest first."""
    table = table_of(
        "模型 Models", "version", "status", "rows", "defaults", "AUC", "log loss", "registered", right=(2, 3, 4, 5)
    )
    for entry in entries:
        figures = entry.manifest.metrics["figures"][0]["metrics"]
        table.add_row(
            entry.version,
            entry.status,
            f"{entry.manifest.rows:,}",
            f"{entry.manifest.defaults:,}",
            f"{figures['auc']['mean']:.3f}",
            f"{figures['log_loss']['mean']:.3f}",
            f"{entry.registered_at:%Y-%m-%d %H:%M}",
        )
    return table


def limits_table(limits: pl.DataFrame, names: Mapping[str, str], rows: int = 15) -> Table:
    """The first firms by limit, with grade and the foremost reason."""
    table = table_of(
        f"参考额度 Reference limits (CNY; {min(rows, limits.height)} of {limits.height:,})",
        *("企业", "outcome", "limit", "if clean", "rate", "PD", "PD high", "grade", "points", "foremost reason"),
        right=(2, 3, 4, 5, 6, 8),
    )
    order = limits.sort("limit_fen", "conditional_limit_fen", "uscc", descending=[True, True, False])
    step = max(order.height // rows, 1)
    for row in order.gather_every(step).head(rows).iter_rows(named=True):
        zh, style = OUTCOMES[row["outcome"]]
        points = row["innovation_points"]
        table.add_row(
            names.get(row["uscc"], row["uscc"]),
            Text(zh, style=style),
            cny(row["limit_fen"]),
            cny(row["conditional_limit_fen"]),
            "-" if row["rate_bp"] is None else f"{row['rate_bp'] / 100:.2f} %",
            percent(row["pd_12m"]),
            percent(row["pd_hi"]),
            row["grade"],
            "-" if points is None else f"{points:.1f}",
            _foremost(row["reasons"]),
        )
    return table


def _foremost(reasons: str) -> str:
    said = json.loads(reasons)
    if not said:
        return "-"
    first = said[0] if said[0]["cny"] is None else next((one for one in said[1:] if one["cny"]), said[0])
    gain = "" if first["cny"] is None else f" ({first['cny']:,})"
    return f"{first['zh']}{gain}"


def summary_table(limits: pl.DataFrame) -> Table:
    """How many firms get what, by grade, and what bound the rest."""
    table = table_of(
        "汇总 Summary (CNY)",
        "grade",
        "firms",
        "eligible",
        "refer",
        "ineligible",
        "with limit",
        "mean limit",
        "total",
        right=range(1, 8),
    )
    lent = pl.col("limit_fen") > 0
    grouped = limits.group_by("grade").agg(
        firms=pl.len(),
        eligible=(pl.col("outcome") == ELIGIBLE).sum(),
        refer=(pl.col("outcome") == REFER).sum(),
        ineligible=(pl.col("outcome") == INELIGIBLE).sum(),
        lent=lent.sum(),
        total=pl.col("limit_fen").sum(),
    )
    for row in grouped.sort("grade").iter_rows(named=True):
        mean = row["total"] // row["lent"] if row["lent"] else None
        table.add_row(
            row["grade"],
            *(f"{row[name]:,}" for name in ("firms", "eligible", "refer", "ineligible", "lent")),
            cny(mean),
            cny(row["total"]),
        )
    return table


def why_zero_table(limits: pl.DataFrame) -> Table:
    """Firms without a limit by the first thing that stood in the way."""
    table = table_of("无额度原因 Why no limit", "code", "firms", "原因", "reason", right=(1,))
    zero = limits.filter(pl.col("limit_fen") == 0)
    counted: dict[str, list[Any]] = {}
    for reasons in zero["reasons"]:
        first = json.loads(reasons)[0]
        counted.setdefault(first["code"], [0, first["zh"], first["en"]])[0] += 1
    for code, (count, zh, en) in sorted(counted.items(), key=lambda item: (-item[1][0], item[0])):
        table.add_row(code, f"{count:,}", zh, en)
    return table


def explanation(
    limit: dict[str, Any], terms: dict[str, Any], facts: dict[str, Any], name: str, policy: Policy
) -> RenderableType:
    """One enterprise as a banker reads it: the answer, how it came about, why, and from which facts."""
    return Group(
        _answer_panel(limit, name, policy),
        _terms_table(limit, terms),
        _reasons_table(limit),
        _facts_table(facts),
        Text(
            f"decision {limit['decision_id']}   model {limit['model_version']}   policy {limit['policy_version']}\n"
            f"facts {limit['input_hash']}   as of {limit['as_of']}, valid until {limit['valid_until']}",
            style="dim",
        ),
    )


def _answer_panel(limit: dict[str, Any], name: str, policy: Policy) -> Panel:
    zh, style = OUTCOMES[limit["outcome"]]
    rate = "-" if limit["rate_bp"] is None else f"{limit['rate_bp'] / 100:.2f} %"
    lines = [
        f"结论 outcome            [{style}]{zh} {limit['outcome']}[/]",
        f"参考额度 limit           [bold]{cny(limit['limit_fen'])} CNY[/]",
        f"补齐后额度 if clean      {cny(limit['conditional_limit_fen'])} CNY",
        f"保本参考利率 rate        {rate}",
        f"违约概率 PD / PD high    {percent(limit['pd_12m'])} / {percent(limit['pd_hi'])}",
        f"等级 grade, 评分 score   {limit['grade']}, {limit['score']}",
    ]
    if limit["innovation_points"] is not None:
        lines.append(f"创新积分 points          {limit['innovation_points']:.1f}")
    if limit["conditions"]:
        lines.append(f"银行须核实 conditions    {', '.join(limit['conditions'])}")
    if limit["missing_feeds"]:
        lines.append(f"数据不完整 missing feeds {', '.join(limit['missing_feeds'])}")
    title = f"{name}  {limit['uscc']}  ·  {policy.title.zh} {policy.title.en}"
    return Panel("\n".join(lines), title=title, title_align="left")


def _terms_table(limit: dict[str, Any], terms: dict[str, Any]) -> Table:
    table = table_of("额度构成 How the limit came about (CNY)", "term", "amount", "", right=(1,))
    rows = (
        ("可持续销售 S*: concentration-adjusted, twice the weaker half, declared", "sustainable_sales_fen"),
        ("承载能力 capacity before risk and points", "capacity_fen"),
        ("风险折扣与积分上浮后 after phi(PD high) and psi(points)", "soft_fen"),
        ("流动资金需求 need W", "need_fen"),
        ("负债空间 room left by existing debt", "debt_room_fen"),
        ("现金流额度 cash branch", "cash_fen"),
        ("积分额度 points branch", "points_fen"),
        ("产品上限 status cap", "status_cap_fen"),
        ("集团上限 group cap", "group_cap_fen"),
        ("申请金额 asked", "asked_cap_fen"),
        ("取整前 before the step", "uncut_fen"),
        ("额度 limit if no rule stood in the way", "limit_fen"),
    )
    bound = next((one.column for one in BOUNDS if one.code == limit["binding"]), None)
    for words, column in rows:
        amount = terms[column]
        unbounded = column == "need_fen" and amount >= 10**14
        table.add_row(words, "-" if unbounded else cny(amount), "◀ binds" if column == bound else "")
    if limit["binding"] in GATES:
        table.add_row(" ".join(GATES[limit["binding"]]), "", "◀ binds")
    return table


def _reasons_table(limit: dict[str, Any]) -> Table:
    table = table_of("原因 Reasons", "code", "CNY", "原因", "reason", right=(1,))
    for reason in json.loads(limit["reasons"]):
        amount = "-" if reason["cny"] is None else f"{reason['cny']:,}"
        table.add_row(reason["code"], amount, reason["zh"], reason["en"])
    return table


def _facts_table(facts: dict[str, Any]) -> Table:
    table = table_of("事实 Facts", "feature", "名称", "value", "unit", right=(2,))
    for feature in CATALOGUE.values():
        value = facts.get(feature.name)
        if feature.group == "feeds":
            continue
        seen = facts.get(feature.name + SEEN)
        shown = (
            _shown(value, feature.unit)
            if value is not None
            else "未知" + ("" if seen is None else f" ({_shown(seen, feature.unit)})")
        )
        table.add_row(feature.name, feature.zh, shown, "CNY" if feature.unit == "fen" else feature.unit)
    return table


def _shown(value: Any, unit: str) -> str:
    if unit == "fen":
        return cny(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def policy_view(policy: Policy, version: str) -> RenderableType:
    """A policy in force with the source of every number."""
    table = table_of(
        f"{policy.title.zh} {policy.title.en}   {version}", "number", "value", "unit", "source", "why", right=(1,)
    )
    for place, setting in _settings(policy.model_dump()):
        table.add_row(place, f"{setting['value']:,}", setting["unit"], setting["source"], setting["why"])
    rules = table_of("规则 Rules", "code", "kind", "passes", "fails", "cannot tell", "evidence", "source")
    for rule in policy.rules:
        unknown = rule.on_unknown if rule.condition is None else f"condition {rule.condition}"
        rules.add_row(rule.code, rule.kind, rule.passes, rule.on_fail, unknown, rule.evidence, rule.source)
    steps = table_of("分级与阶梯 Grades and steps", "table", "step", "source")
    for band in policy.grades.bands:
        steps.add_row(
            "grades",
            f"{band.grade}: PD below {band.pd_below_bp / 100:.2f} %, m {band.tax_multiple_bp / 10_000:g}",
            policy.grades.source,
        )
    for cut in policy.haircut.steps:
        steps.add_row(
            "haircut phi",
            f"PD high up to {cut.pd_hi_at_most_bp / 100:.2f} %: {cut.share_bp / 100:.0f} %",
            policy.haircut.source,
        )
    for lift in policy.uplift.steps:
        steps.add_row(
            "uplift psi",
            f"points from {lift.points_share_at_least_bp / 100:.0f} % of the scale: {lift.uplift_bp / 100:.0f} %",
            policy.uplift.source,
        )
    if policy.points_branch is not None:
        for amount in policy.points_branch.steps:
            steps.add_row(
                "points branch",
                f"points from {amount.points_share_at_least_bp / 100:.0f} %: {cny(amount.amount_fen)} CNY",
                policy.points_branch.source,
            )
    for cap in policy.limit.status_caps:
        steps.add_row("status cap", f"{cap.when}: {cny(cap.cap_fen)} CNY", cap.source)
    return Group(table, steps, rules, Text(f"approved by: {policy.approved_by}"))


def _settings(node: Any, place: str = "") -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(node, dict):
        return []
    if {"value", "unit", "source"} <= node.keys():
        return [(place, node)]
    return [found for key, inside in node.items() for found in _settings(inside, f"{place}.{key}".lstrip("."))]


def console(*, errors: bool = False) -> Console:
    """Where tables go; wide enough for a table when output is not a terminal."""
    found = Console(stderr=errors, highlight=False)
    return found if found.is_terminal else Console(stderr=errors, highlight=False, width=200)


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """A spinner on the error stream while a step runs; what it is told is shown beside it."""
    errors = console(errors=True)
    with errors.status(what) as status:

        def told(now: str) -> None:
            status.update(f"{what}: {now}")

        yield told


@contextmanager
def steps() -> Iterator[tuple[Callable[[int, int], None], Callable[[str, int, int], None]]]:
    """Two progress bars on the error stream: days of features, and steps of development."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console(errors=True),
    ) as progress:
        days = progress.add_task("features as of each day", total=None)
        work = progress.add_task("development", total=None)

        def on_days(done: int, whole: int) -> None:
            progress.update(days, completed=done, total=whole)

        def on_progress(what: str, done: int, whole: int) -> None:
            progress.update(work, completed=done, total=whole, description=what)

        yield on_days, on_progress
