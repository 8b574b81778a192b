"""What the risk officer's commands print: tables for people, in Chinese and English, whole in 100 columns."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from data_contracts.rules import Code, Description
from models.bagging import HOW_THE_BAG_IS_MADE
from models.dataset import LABEL
from models.development import Trained
from models.registry import Entry
from models.sources.folder import Examined, Folder
from models.validation import CONFIDENCE, Development
from scoring.catalogue import CATALOGUE
from scoring.eligibility import ELIGIBLE, INELIGIBLE, REFER
from scoring.policy import BP, Policy

OUTCOMES = {ELIGIBLE: ("可授信", "green"), REFER: ("转人工", "yellow"), INELIGIBLE: ("不符合", "red")}


def cny(fen: int | None) -> str:
    """Fen as CNY with separators; a dash for null."""
    return "-" if fen is None else f"{fen / 100:,.0f}"


def percent(share: float | None) -> str:
    """A share as per cent with two decimals; a dash for null."""
    return "-" if share is None else f"{share:.2%}"


def rate(bp: int) -> str:
    """Basis points as per cent with two decimals."""
    return f"{bp / 100:.2f}%"


def table_of(title: str, *columns: str, right: Sequence[int] = ()) -> Table:
    """An empty table; columns in `right` are aligned to the right and never broken, the others are folded to fit."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", padding=(0, 1, 0, 0))
    for place, name in enumerate(columns):
        is_number = place in right
        table.add_column(name, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    return table


def check_table(found: Folder, rules: int = 5) -> Table:
    """Rows read, good and quarantined per source, and the rules that most of the latter broke."""
    table = table_of(
        "数据检查 Data check", "source", "read", "good", "quarantined", "duplicates", "why", right=(1, 2, 3, 4)
    )
    for report in found.reports.values():
        named = [f"{rule} {count:,}" for rule, count in report.by_rule.items()]
        more = [f"and {len(named) - rules} more rules"] if len(named) > rules else []
        table.add_row(
            report.source,
            f"{report.read:,}",
            f"{report.good:,}",
            f"{report.quarantined:,}",
            f"{report.duplicates:,}",
            ", ".join(named[:rules] + more),
        )
    return table


def check_json(examined: Examined) -> str:
    """The same as JSON, for programs, with what keeps the folder from being used."""
    found, fault = examined.found, examined.fault
    reports = {name: {**vars(report), "by_rule": dict(report.by_rule)} for name, report in found.reports.items()}
    plain = {"sources": reports, "warnings": found.warnings, "unusable": fault.problems if fault is not None else []}
    return json.dumps(plain, ensure_ascii=False, indent=1, default=list)


def contract_table(columns: Sequence[Description]) -> RenderableType:
    """Every column of every source, one table a source."""
    tables: dict[str, Table] = {}
    for one in columns:
        title = f"数据契约 Contract of {one.source}"
        table = tables.setdefault(one.source, table_of(title, "column", "type", "null", "allowed", "名称", "meaning"))
        table.add_row(one.column, one.type, "yes" if one.nullable else "no", one.allowed, one.title, one.meaning)
    return Group(*tables.values())


def codes_table(codes: Sequence[Code]) -> Table:
    """What the rows of a quarantine did not keep, by code."""
    table = table_of("隔离代码 Codes of the quarantine", "source", "code", "what a good row keeps")
    table.columns[0].no_wrap = True
    for one in codes:
        table.add_row(one.source or "any", one.code, one.meaning)
    return table


def feature_table() -> Table:
    """The feature catalogue."""
    table = table_of("特征目录 Feature catalogue", "feature", "名称", "unit", "safer", "use", "formula; fact edits")
    for column in (0, 2, 3, 4):
        table.columns[column].no_wrap = True
    for feature in CATALOGUE.values():
        null = "" if feature.null == "never null" else f"; null: {feature.null}"
        edits = f"\nedits: {feature.edits}" if feature.edits else ""
        table.add_row(
            feature.name, feature.zh, feature.unit, feature.better or "-", feature.use, feature.formula + null + edits
        )
    return table


def development_view(trained: Trained) -> RenderableType:
    """How a challenger did beside its rivals, and the sentence that says which wins."""
    development = trained.development
    repeats = len(development.figures[0].metrics["auc"].values)
    table = table_of(
        "嵌套交叉验证 Nested cross-validation" + (f" ({repeats} repeats, mean ± sd)" if repeats > 1 else ""),
        "model",
        *("AUC", "log loss", "KS", "PR-AUC", "Brier", "ECE"),
        right=range(1, 7),
    )
    for figures in development.figures:
        spread = figures.metrics
        table.add_row(
            figures.words,
            *(
                f"{spread[name].mean:.3f}" + (f" ± {spread[name].sd:.3f}" if repeats > 1 else "")
                for name in ("auc", "log_loss", "ks", "pr_auc", "brier", "ece")
            ),
        )
    rows = trained.dataset.defaulted
    lines = [
        f"loans {rows.size:,}, defaults {int(rows.sum()):,} ({rows.mean():.1%})"
        + "".join(f"; left out {count:,}: {why}" for why, count in trained.dataset.left_out.items() if count),
        (
            f"{CONFIDENCE:.0%} interval of AUC: {_interval(development, 'auc')}; "
            f"of Gini {development.figures[0].metrics['gini'].mean:.3f}: {_interval(development, 'gini')}; "
            f"of log loss: {_interval(development, 'log_loss')}"
        ),
        (
            f"certificate: {'holds' if development.certificate.holds else 'DOES NOT HOLD'} "
            f"({development.certificate.trees:,} trees, {development.certificate.pairs:,} pairs of leaves, "
            f"{development.certificate.coefficients:,} signs, {len(development.bag)} bag members)"
            + "".join(f"; says nothing of {one.name}" for one in development.pipeline.inputs if not one.direction)
        ),
        HOW_THE_BAG_IS_MADE,
        f"label: {LABEL}",
        f"looked from the day of each loan; no fact known after {trained.as_of} 基准日",
        *(f"warning: {warning}" for warning in trained.warnings),
        *(f"注意 note: {caveat}" for caveat in trained.caveats),
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
    """Firms spread evenly from the highest limit to none, with grade and the foremost reason."""
    order = limits.sort("limit_fen", "conditional_limit_fen", "uscc", descending=[True, True, False])
    step = max(order.height // rows, 1)
    chosen = order.gather_every(step).head(rows)
    table = table_of(
        f"参考额度 Reference limits, not offers (CNY; {chosen.height} of {limits.height:,}, from highest to none)",
        *("企业", "结论", "limit", "if clean", "rate", "PD", "grade", "points", "首要原因 first reason"),
        right=(2, 3, 4, 5, 7),
    )
    for row in chosen.iter_rows(named=True):
        zh, style = OUTCOMES[row["outcome"]]
        points = row["innovation_points"]
        table.add_row(
            names.get(row["uscc"], row["uscc"]),
            Text(zh, style=style),
            cny(row["limit_fen"]),
            cny(row["conditional_limit_fen"]),
            "-" if row["rate_bp"] is None else rate(row["rate_bp"]),
            percent(row["pd_12m"]),
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
    gain = f" ({first['cny']:,})" if first["cny"] else ""
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


def calibration_table(by_grade: pl.DataFrame) -> Table:
    """What became of the training rows of each grade, beside what the model had expected of them."""
    table = table_of(
        "分级校准 Calibration by grade: training rows out of fold, at their own base rate; "
        "grade bound 等级上界 at the policy's central tendency",
        "grade",
        *("rows", "defaults", "expected", "default rate", "mean PD", "grade bound 等级上界"),
        right=range(1, 7),
    )
    for row in by_grade.iter_rows(named=True):
        table.add_row(
            row["grade"],
            f"{row['obligors']:,}",
            f"{row['defaults']:,}",
            f"{row['expected']:,.1f}",
            *(percent(row[part] / row["obligors"] if row["obligors"] else None) for part in ("defaults", "expected")),
            percent(row["pd_hi"]),
        )
    return table


def why_zero_table(limits: pl.DataFrame) -> Table:
    """Firms without a limit by the first thing that stood in the way; cannot tell and failed are told apart."""
    zero = limits.filter(pl.col("limit_fen") == 0)
    table = table_of(f"无额度原因 Why no limit ({zero.height:,} firms)", "firms", "原因", "reason", "code", right=(0,))
    counted = Counter(
        (first["code"], first["zh"], first["en"]) for reasons in zero["reasons"] for first in json.loads(reasons)[:1]
    )
    for (code, zh, en), count in sorted(counted.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(f"{count:,}", zh, en, Text(code, style="dim"))
    return table


def policy_view(policy: Policy, version: str) -> RenderableType:
    """All that decides under a policy: every number, table and rule, with source and reason."""
    table = table_of(
        f"{policy.title.zh} {policy.title.en}   {version}", "number", "value", "unit", "source", "why", right=(1,)
    )
    for place, setting in _settings(policy.model_dump()):
        table.add_row(place, f"{setting['value']:,}", setting["unit"], setting["source"], setting["why"])
    branch = policy.points_branch
    if branch is not None:
        table.add_row("points_branch.rate_bp", f"{branch.rate_bp:,}", "bp", branch.source, branch.why)
    rules = table_of("规则 Rules", "code", "kind", "passes", "fails", "cannot tell", "evidence", "source")
    for table_with_names in (table, rules):
        table_with_names.columns[0].no_wrap = True
    for rule in policy.rules:
        unknown = f"{rule.on_unknown} {rule.condition or ''}".rstrip()
        rules.add_row(rule.code, rule.kind, rule.passes, rule.on_fail, unknown, rule.evidence, rule.source)
    return Group(
        table,
        _steps_table(policy),
        rules,
        Text(f"points scale (ruleset): {policy.ruleset or 'none'}"),
        Text(f"declared sales required: {'yes' if policy.limit.declared_sales_required else 'no'}"),
        Text(f"approved by: {policy.approved_by}"),
    )


def _steps_table(policy: Policy) -> Table:
    """The tables of a policy step by step; source and reason stand at the first step of each."""
    blocks: list[tuple[str, str, str, list[str]]] = []
    bands = [
        f"{band.grade}: PD below {_share(band.pd_below_bp)}, m {band.tax_multiple_bp / BP:.7g}"
        for band in policy.grades.bands
    ]
    blocks.append(("grades", policy.grades.source, policy.grades.why, bands))
    cuts = [f"PD high up to {_share(cut.pd_hi_at_most_bp)}: {_share(cut.share_bp)}" for cut in policy.haircut.steps]
    blocks.append(("haircut phi", policy.haircut.source, policy.haircut.why, cuts))
    lifts = [
        f"points from {_share(lift.points_share_at_least_bp)} of the scale: {_share(lift.uplift_bp)}"
        for lift in policy.uplift.steps
    ]
    blocks.append(("uplift psi", policy.uplift.source, policy.uplift.why, lifts or ["none: 100 %"]))
    branch = policy.points_branch
    if branch is not None:
        amounts = [
            f"points from {_share(step.points_share_at_least_bp)}: {_exact_cny(step.amount_fen)} CNY"
            for step in branch.steps
        ]
        open_and_clean = [f"open when {branch.open_when}", f"clean when {branch.clean_when}"]
        blocks.append(("points branch", branch.source, branch.why, [*open_and_clean, *amounts]))
    blocks += [
        (cap.code, cap.source, cap.words.en, [f"{cap.when}: {_exact_cny(cap.cap_fen)} CNY"])
        for cap in policy.limit.status_caps
    ]
    table = table_of("分级与阶梯 Grades and steps", "table", "step", "source", "why")
    for name, source, why, steps in blocks:
        for place, step in enumerate(steps):
            table.add_row(name, step, "" if place else source, "" if place else why)
    return table


def _share(bp: int) -> str:
    """Basis points as per cent, exact."""
    return f"{bp / 100:.7g} %"


def _exact_cny(fen: int) -> str:
    return f"{fen // 100:,}" + (f".{fen % 100:02d}" if fen % 100 else "")


def _settings(node: object, place: str = "") -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(node, dict):
        return []
    if {"value", "unit", "source"} <= node.keys():
        return [(place, node)]
    return [found for key, inside in node.items() for found in _settings(inside, f"{place}.{key}".lstrip("."))]
