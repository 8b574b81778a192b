"""The catalogue of features: what each is, which way it points, what null means, and who may use it.

Everything else reads from here: the model takes its inputs and their directions, the reasons take their groups, the
policy may name only these columns, and `jifen data describe --features` prints the table.

`use="model"` features are monotone in facts by construction (docs/decisions/fact-monotone-features.md): adding a
favourable fact or dropping an unfavourable one moves each of them to the safer side or leaves it. `use="shown"`
features make no such promise; they are for rules, reports and fraud review, and never enter the model.

A feature with `feeds` is null unless they are complete: "clean" and "not delivered" are different
things. Beside it stands a column with the ending `_seen`: what the delivered rows show, taken at their word; it serves
the conditional limit only.
"""

from dataclasses import dataclass
from typing import Literal

Better = Literal["more", "less"]
Use = Literal["model", "shown"]

SEEN = "_seen"
CANNOT_TELL = "a feed is missing or incomplete: cannot tell"
FEED_STATES = ("complete", "incomplete", "missing")


@dataclass(frozen=True)
class Feature:
    """One column of the feature frame.

    Attributes:
        name: column name; the unit comes last.
        zh: what bankers call it.
        unit: fen, count, months, days, bp, level, text or flag.
        formula: how it follows from facts.
        group: the reason group it belongs to (`scoring.reasons`).
        better: the side on which the firm is safer; None: no order is promised.
        use: `model` inputs are certified; `shown` features never enter the model.
        feeds: the feeds that must be complete for the value to be known; none: rows count at their word.
        null: what null means.
        scale: how the model spreads it: `log` for money and counts, `linear` otherwise.
        edits: the fact edits it answers to.
    """

    name: str
    zh: str
    unit: str
    formula: str
    group: str
    better: Better | None = None
    use: Use = "shown"
    feeds: tuple[str, ...] = ()
    null: str = "never null"
    scale: Literal["log", "linear"] = "log"
    edits: str = ""

    @property
    def direction(self) -> int:
        """+1 when more is riskier, -1 when more is safer, 0 when no order is promised."""
        return {"less": 1, "more": -1, None: 0}[self.better]


def _sale(name: str, zh: str, formula: str, group: str = "sales", *, unit: str = "fen") -> Feature:
    return Feature(
        name,
        zh,
        unit,
        formula,
        group,
        "more",
        "model",
        edits="add or remove a sale, void, red letter; split an invoice",
    )


def _conduct(name: str, zh: str, unit: str, formula: str, *, group: str, feed: str, edits: str) -> Feature:
    return Feature(
        name,
        zh,
        unit,
        formula,
        group,
        "less",
        "model",
        (feed,),
        CANNOT_TELL,
        edits=edits,
    )


WINDOW_SALES = tuple(
    _sale(f"sales_{months}m_fen", f"近{months}个月净销售额", f"(Σ N over {months} months - U)⁺")
    for months in (3, 6, 12, 24, 36)
)

SALES = (
    *WINDOW_SALES,
    _sale("weaker_half_12m_fen", "近12个月较弱半年", "(min of the two halves of 12 months - U)⁺", "steadiness"),
    _sale("weakest_quarter_12m_fen", "近12个月最弱季度", "(min of the four quarters of 12 months - U)⁺", "steadiness"),
    _sale("weaker_year_24m_fen", "近24个月较弱年度", "(min of the two years of 24 months - U)⁺", "steadiness"),
    *(
        _sale(
            f"active_months_{months}m",
            f"近{months}个月有销售月数",
            f"months of {months} whose sales less the unlinked red letters of the month are positive",
            "steadiness",
            unit="count",
        )
        for months in (12, 24, 36)
    ),
    Feature(
        "months_since_sale",
        "距最近销售月数",
        "months",
        "age of the last month with positive sales; 36 when none in 36 months",
        "steadiness",
        "less",
        "model",
        edits="add or remove a sale",
    ),
    _sale("buyers_12m", "近12个月客户数", "buyers with at least 1,000 CNY net in 12 months", "buyers", unit="count"),
    _sale(
        "sales_less_top1_12m_fen",
        "剔除第一大客户集中后销售额",
        "(S - ½·(T₁ - S/2)⁺)⁺ with S = Σ N - U over 12 months",
        "buyers",
    ),
    _sale(
        "sales_less_top5_12m_fen",
        "剔除前五大客户集中后销售额",
        "(S - ½·(T₅ - S/2)⁺)⁺ with S = Σ N - U over 12 months",
        "buyers",
    ),
    _sale(
        "repeat_sales_12m_fen", "老客户销售额", "Σ N⁺ of 12 months over buyers with N > 0 in the 12 before", "buyers"
    ),
)

PURCHASES = (
    Feature(
        "purchase_months_12m",
        "近12个月有采购月数",
        "count",
        "months of 12 with positive net purchases",
        "purchases",
        "more",
        "model",
        edits="add or remove a purchase",
    ),
    Feature(
        "suppliers_12m",
        "近12个月供应商数",
        "count",
        "suppliers with at least 1,000 CNY net in 12 months",
        "purchases",
        "more",
        "model",
        edits="add or remove a purchase",
    ),
)

CONDUCT = (
    _conduct(
        "cancelled_share_12m_bp",
        "近12个月作废红冲占比",
        "bp",
        "min((V + R) / (V + R + P), ½): void, red-letter and valid positive sales of 12 months",
        group="cancelled",
        feed="invoices_out_feed",
        edits="void or reverse a sale",
    ),
    _conduct(
        "tax_late_days_24m",
        "近24个月最长逾期申报缴款天数",
        "days",
        "largest late_days of filings whose period ended in the 24 months before as_of",
        group="tax_conduct",
        feed="tax_filings_feed",
        edits="pay or file earlier",
    ),
    _conduct(
        "tax_arrears_fen",
        "当前欠税",
        "fen",
        "Σ arrears_fen over all filings known",
        group="tax_conduct",
        feed="tax_filings_feed",
        edits="pay arrears",
    ),
    _conduct(
        "social_arrears_12m_fen",
        "近12个月最高社保欠缴",
        "fen",
        "largest arrears_fen of the last 12 months",
        group="social",
        feed="social_insurance_feed",
        edits="pay contributions",
    ),
    _conduct(
        "public_records_36m",
        "近36个月负面公共记录数",
        "count",
        "listings, penalties and lawsuits of the last 36 months",
        group="records",
        feed="public_records_feed",
        edits="drop a listing",
    ),
)

FAVOURABLE = (
    Feature(
        "tax_paid_24m_fen",
        "近24个月实缴税额",
        "fen",
        "Σ over kinds of (Σ tax_fen of filings paid in full - Σ refund_fen)⁺, periods that end in the 24 months up to "
        "the last due quarter",
        "tax",
        "more",
        "model",
        edits="pay tax",
    ),
    Feature(
        "declared_sales_12m_fen",
        "近12个月申报销售额",
        "fen",
        "Σ declared_sales_fen of VAT filings, 12 months up to the last due quarter",
        "tax",
        "more",
        "model",
        edits="file a declaration",
    ),
    Feature(
        "taxpayer_rating_level",
        "近两年最好纳税信用级别",
        "level",
        "best of the ratings of the two years before as_of: A 4, B 3, M 2, C 1, D 0",
        "tax_conduct",
        "more",
        "model",
        null="no rating of these years known",
        scale="linear",
        edits="upgrade a rating",
    ),
    Feature(
        "insured_months_12m",
        "近12个月参保人月",
        "count",
        "Σ headcount over the 12 months up to the last completed quarter",
        "social",
        "more",
        "model",
        edits="insure a person",
    ),
)

REGISTRY = (
    Feature("industry_code", "行业代码", "text", "registry", "scope"),
    Feature("employees", "从业人员", "count", "registry", "scope", null="not reported"),
    Feature("revenue_fen", "年营业收入", "fen", "registry", "scope", null="not reported"),
    Feature("total_assets_fen", "资产总额", "fen", "registry", "scope", null="not reported"),
    Feature("registration_status", "登记状态", "text", "registry", "scope"),
    Feature("age_months", "成立月数", "months", "whole months since established_on", "scope"),
    Feature("zone_months", "入园月数", "months", "whole months since zone_entered_on", "scope", null="not in the zone"),
    Feature("srdi_live", "专精特新有效", "flag", "an srdi certificate valid at as_of", "scope", "more"),
    Feature(
        "tech_live",
        "科技资质有效",
        "flag",
        "a hightech, tech_sme, innovative_sme or srdi certificate valid at as_of",
        "scope",
        "more",
    ),
    Feature("srdi_own_word", "专精特新仅凭自报", "flag", "srdi_live, and only the applicant says so", "scope"),
    Feature("tech_own_word", "科技资质仅凭自报", "flag", "tech_live, and only the applicant says so", "scope"),
)

STANDING = (
    Feature(
        "tax_paid_complete_24m_fen",
        "完整申报期实缴税额",
        "fen",
        "tax_paid_24m_fen if the filings feed is complete, else 0: withheld filings never help",
        "tax",
        "more",
    ),
    Feature(
        "unfiled_months_24m",
        "近24个月未申报月数",
        "count",
        "due months of the last 24 that no VAT return covers, as far as the firm existed",
        "tax_conduct",
        "less",
    ),
    Feature(
        "taxpayer_d_years",
        "近两年D级次数",
        "count",
        "ratings of D in the two years before as_of",
        "tax_conduct",
        "less",
        feeds=("taxpayer_ratings_feed",),
        null=CANNOT_TELL,
    ),
    Feature(
        "live_listings",
        "在列严重负面记录数",
        "count",
        "judgment defaulter, serious violation, tax violation, abnormal operation or enforcement that stands at as_of",
        "records",
        "less",
        feeds=("public_records_feed",),
        null=CANNOT_TELL,
    ),
    Feature(
        "overdue_days_now",
        "当前逾期天数",
        "days",
        "largest overdue_days over open debts in their latest report",
        "debts",
        "less",
        feeds=("debts_feed",),
        null=CANNOT_TELL,
    ),
    Feature(
        "worst_five_class",
        "最差五级分类",
        "level",
        "normal 0, special mention 1, substandard 2, doubtful 3, loss 4; worst open debt",
        "debts",
        "less",
        feeds=("debts_feed",),
        null=CANNOT_TELL,
    ),
    Feature(
        "existing_unsecured_fen",
        "存量信用及流贷额度",
        "fen",
        "Σ max(balance, line) over open unsecured and working-capital debts",
        "debts",
        "less",
        feeds=("debts_feed",),
        null="not known: the bank must deduct it",
    ),
    Feature(
        "group_existing_unsecured_fen",
        "集团其他成员存量",
        "fen",
        "the same over the other members of the group, as far as reported",
        "debts",
        "less",
    ),
    Feature("group_members", "集团其他成员数", "count", "other enterprises of the registry with its group_id", "debts"),
    Feature(
        "working_capital_need_fen",
        "流动资金贷款需求",
        "fen",
        "the regulator's W less own and other funds, from yearly statements of an authority, or audited and not "
        "supplied by the applicant",
        "need",
        null="statements are missing, not of a whole year, or not evidenced",
    ),
    Feature(
        "statements_doubted",
        "财务报表存疑",
        "flag",
        "a row of the statements is in quarantine: the need cannot be told",
        "need",
        "less",
    ),
)

SHOWN = (
    Feature(
        "unlinked_red_12m_fen",
        "近12个月未关联红字",
        "fen",
        "U: red letters of 12 months not traced to their invoice",
        "cancelled",
    ),
    Feature("invoices_out_12m", "近12个月开票张数", "count", "valid positive sales invoices", "sales"),
    Feature(
        "mean_invoice_fen", "平均单张金额", "fen", "Σ net / count, rounded down", "sales", null="no sale in 12 months"
    ),
    Feature(
        "sales_growth_12m_bp",
        "销售同比增长",
        "bp",
        "12 months over the 12 before, less one",
        "sales",
        null="no sale in the 12 months before",
    ),
    Feature(
        "sales_cv_12m_bp",
        "月销售变异系数",
        "bp",
        "standard deviation over mean of 12 monthly sales",
        "steadiness",
        null="no sale in 12 months",
    ),
    Feature("top1_share_12m_bp", "第一大客户占比", "bp", "T₁ / S", "buyers", null="no sale in 12 months"),
    Feature("buyer_hhi_12m_bp", "客户集中度HHI", "bp", "Σ share² over buyers", "buyers", null="no sale in 12 months"),
    Feature("purchases_12m_fen", "近12个月净采购额", "fen", "Σ net purchases", "purchases"),
    Feature(
        "round_trade_share_12m_bp",
        "对倒交易占比",
        "bp",
        "Σ min(sold to c, bought from c) / sales, 12 months",
        "buyers",
        feeds=("invoices_out_feed", "invoices_in_feed"),
        null="no sale in 12 months, or a feed is not complete: cannot tell",
    ),
    Feature(
        "declared_to_invoiced_bp",
        "申报与开票比",
        "bp",
        "declared over invoiced sales of the months due",
        "tax",
        null="no sale in the months due",
    ),
)

FEEDS = tuple(
    Feature(f"{source}_feed", f"{zh}数据完整性", "text", "complete, incomplete or missing (scoring.feeds)", "feeds")
    for source, zh in (
        ("invoices_out", "销项发票"),
        ("invoices_in", "进项发票"),
        ("tax_filings", "纳税申报"),
        ("taxpayer_ratings", "纳税信用级别"),
        ("social_insurance", "社保"),
        ("debts", "信贷记录"),
        ("public_records", "公共信用记录"),
    )
)

UNDER_POLICY = (
    Feature(
        "size_class", "企业规模", "text", "MIIT size class: large, medium, small, micro", "scope", null=CANNOT_TELL
    ),
    Feature("innovation_points", "创新积分", "points", "score under the policy's ruleset", "points", "more"),
    Feature("points_share_bp", "积分占满分比", "bp", "score over scale", "points", "more"),
    Feature(
        "points_own_word_bp",
        "积分自报占比",
        "bp",
        "of points_share_bp, what only the applicant reported; 0 where the policy's steps are reached without it",
        "points",
    ),
)

CATALOGUE: dict[str, Feature] = {
    feature.name: feature
    for feature in (*SALES, *PURCHASES, *CONDUCT, *FAVOURABLE, *REGISTRY, *STANDING, *SHOWN, *FEEDS, *UNDER_POLICY)
}
"""Every feature by name, in the order of the frame."""

MODEL_INPUTS: tuple[Feature, ...] = tuple(feature for feature in CATALOGUE.values() if feature.use == "model")
"""The inputs of the model. What a risk officer tries beside them (`train --extra-column`) enters without a promise."""

MASKED: tuple[Feature, ...] = tuple(feature for feature in CATALOGUE.values() if feature.feeds)
"""The features that are null unless their feeds are complete; each has a `_seen` column."""
