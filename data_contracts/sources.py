"""The twelve sources of facts, one contract each.

Every row says who it is about (`uscc`), on which day it became known (`known_on`) and who supplied it. A correction
is a new row with the same key and a later `known_on`; as of a day, the latest known row of a key counts. Money is
whole fen, null is "not observed", dates are days.

A contract is a pandera model: its fields give types, nulls, ranges and meanings; its `rules` give what several fields
must satisfy together. `checking.checked` parts good rows from bad ones with it, and is the only way to a frame that
`scoring.features` accepts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.api.polars.components import Column
from pandera.typing.polars import DataFrame

from data_contracts.uscc import CodeState, mistyped, states

FIRST_DAY = date(1949, 10, 1)
LAST_DAY = date(2199, 12, 31)
MOST_FEN = 10**14
"""No single amount exceeds 1,000 billion CNY, so that sums over a firm's rows stay inside int64."""
MOST_INVOICE_FEN = 10**12
MOST_TEXT = 200
NO_CONTROL_CHARACTER = r"^[^\x00-\x1f\x7f-\x9f]+$"
"""No line break, NUL or tab hides inside a name or an id."""

APPLICANT = "applicant"
SUPPLIERS = ("authority", APPLICANT, "bank")
DIRECTIONS = ("in", "out")
UNITS = ("fen", "bp", "count")


@dataclass(frozen=True)
class Rule:
    """What several fields of one row must satisfy together; an unobserved answer (null) satisfies it.

    Attributes:
        code: stable name, written to the quarantine.
        fields: the columns it looks at.
        holds: boolean expression over the source's columns.
        meaning: the rule as a sentence.
    """

    code: str
    fields: tuple[str, ...]
    holds: pl.Expr
    meaning: str


def _not_before(later: str, earlier: str) -> Rule:
    return Rule(
        code=f"{later}_before_{earlier}",
        fields=(later, earlier),
        holds=pl.col(later) >= pl.col(earlier),
        meaning=f"{later} is not before {earlier}",
    )


def _day(title: str, description: str, *, nullable: bool = False) -> Any:
    return pa.Field(ge=FIRST_DAY, le=LAST_DAY, nullable=nullable, title=title, description=description)


def _text(title: str, description: str, *, nullable: bool = False, most: int = MOST_TEXT) -> Any:
    return pa.Field(
        str_length={"min_value": 1, "max_value": most},
        str_matches=NO_CONTROL_CHARACTER,
        nullable=nullable,
        title=title,
        description=description,
    )


def _fen(title: str, description: str, *, least: int = 0, nullable: bool = False, most: int = MOST_FEN) -> Any:
    return pa.Field(ge=least, le=most, nullable=nullable, title=title, description=description)


def _one_of(values: tuple[str, ...], title: str, description: str, *, nullable: bool = False) -> Any:
    return pa.Field(isin=list(values), nullable=nullable, title=title, description=description)


VALID_CODE = Rule(
    code="uscc_check_character",
    fields=("uscc",),
    holds=pl.col("uscc").map_batches(
        lambda codes: states(codes) != CodeState.INVALID.value, return_dtype=pl.Boolean, is_elementwise=True
    ),
    meaning="uscc has the form and check character of GB 32100-2015 (codes of the Fujian pilot pass with a warning)",
)


_LETTERS = r"[\x{FF01}-\x{FF5E}]|\p{Cf}|^ | $|  |[\p{Z}--[ ]]"
"""Full-width and invisible characters, outer and doubled blanks, and blanks other than U+0020."""
_NOBODY = ("NULL", "NONE", "NAN", "NA", "N/A", "#N/A", "NIL", "-", "--", "/", "\\N", "无", "空")


def _among_distinct(column: str, bad: Callable[[pl.Series], pl.Series]) -> pl.Expr:
    """True where the value is not among the bad ones of the distinct values: an id repeats itself a thousand times."""

    def judged(values: pl.Series) -> pl.Series:
        found = bad(values.unique().drop_nulls())
        if found.is_empty():
            return pl.repeat(value=True, n=values.len(), dtype=pl.Boolean, eager=True)
        return ~values.is_in(found.implode())

    return pl.col(column).map_batches(judged, return_dtype=pl.Boolean, is_elementwise=True)


def _party(column: str, *, upper: bool) -> tuple[Rule, ...]:
    """An id is written in one way and names somebody, or one party counts as two and hides what is between them.

    Args:
        column: holds the id.
        upper: lower case is another way to write it; not where ids are told apart by case.
    """
    other = rf"\p{{Ll}}|{_LETTERS}" if upper else _LETTERS
    rules = (
        Rule(
            f"{column}_written_otherwise",
            (column,),
            _among_distinct(column, lambda ids: ids.filter(ids.str.contains(other))),
            f"{column} has no outer, doubled or other blanks than U+0020, no full-width or invisible characters"
            f"{' and no lower-case letters' if upper else ''}",
        ),
        Rule(
            f"{column}_names_nobody",
            (column,),
            _among_distinct(column, lambda ids: ids.filter(ids.str.to_uppercase().is_in(_NOBODY))),
            f"{column} is no word for nothing, such as null, NaN or N/A",
        ),
    )
    code = Rule(
        f"{column}_check_character",
        (column,),
        _among_distinct(column, mistyped),
        f"{column} with the form of a unified social credit code has its check character (or is a resident's number)",
    )
    return (*rules, code) if upper else rules


class Contract(pa.DataFrameModel):
    """What all sources share."""

    uscc: str = _text("统一社会信用代码", "whose fact it is: unified social credit code, 18 characters", most=18)
    known_on: pl.Date = _day("获知日", "the day the fact became known")
    supplier: str = _one_of(SUPPLIERS, "提供方", "who supplied it: an authority, the applicant, or a bank")

    class Config:
        """Columns neither more nor fewer; nothing is coerced in silence."""

        strict = True
        coerce = False


@dataclass(frozen=True)
class Source:
    """One source file: its contract and what a pandera model has no place for.

    Attributes:
        name: of the file, without ending.
        contract: types, nulls, ranges and meanings of the columns.
        key: what a row is about; with `known_on` it names one row of the applicant's and one of all others.
        is_delivered: authorities and banks deliver it, so an applicant's own rows neither count nor cast doubt.
        happened_on: the column by which a completeness mark counts rows into its period; null: it counts them all.
        total_of: the column that a completeness mark sums; null: none.
        stands_until: of a source whose rows state what stands: the last day on which a row stands, from `happened_on`
            on; null on a row: it still stands. None: every row is an event of its own day.
        reports_on: the columns of what a row reports on; its next report ends the one before. None: the key.
        rules: what several fields of a row must satisfy together.
    """

    name: str
    contract: type[Contract]
    key: tuple[str, ...]
    rules: tuple[Rule, ...]
    is_delivered: bool = False
    happened_on: str | None = None
    total_of: str | None = None
    stands_until: pl.Expr | None = None
    reports_on: tuple[str, ...] | None = None

    @property
    def subject(self) -> tuple[str, ...]:
        """What a row reports on: `reports_on`, or the key."""
        return self.key if self.reports_on is None else self.reports_on

    @property
    def columns(self) -> dict[str, Column]:
        """The pandera columns by name, in the order of the file."""
        return self.contract.to_schema().columns

    @property
    def types(self) -> dict[str, pl.DataType]:
        """The polars type of each column, in the order of the file."""
        return {name: column.dtype.type for name, column in self.columns.items() if column.dtype is not None}


class Enterprises(Contract):
    """工商登记与年报: registration and size. The one file that must be there."""

    name: str = _text("企业名称", "registered name")
    established_on: pl.Date = _day("成立日期", "day of establishment")
    zone_entered_on: pl.Date = _day("入园日期", "day it moved into the zone; null: not in it", nullable=True)
    industry_code: str = pa.Field(
        str_matches=r"^[A-T][0-9]{2,4}$",
        title="行业代码",
        description="GB/T 4754-2017: section letter and 2 to 4 digits",
    )
    district: str = pa.Field(str_matches=r"^[0-9]{6}$", title="行政区划", description="GB/T 2260, six digits")
    employees: int = pa.Field(ge=0, le=5_000_000, nullable=True, title="从业人员", description="persons at period end")
    revenue_fen: int = _fen("营业收入", "operating revenue of the last fiscal year, fen", nullable=True)
    total_assets_fen: int = _fen("资产总额", "total assets at period end, fen", nullable=True)
    taxpayer_type: str = _one_of(
        ("general", "small_scale"), "纳税人类型", "一般纳税人 general, 小规模纳税人 small_scale", nullable=True
    )
    registration_status: str = _one_of(
        ("active", "moved_out", "revoked", "cancelled"), "登记状态", "存续, 迁出, 吊销, 注销"
    )
    group_id: str = _text("关联集团", "id shared by related parties; null: none known", nullable=True)


ENTERPRISES = Source(
    "enterprises",
    Enterprises,
    key=("uscc",),
    rules=(
        VALID_CODE,
        _not_before("known_on", "established_on"),
        *_party("group_id", upper=True),
    ),
)


class Qualifications(Contract):
    """资质: certificates that lapse, such as 专精特新 or 高新技术企业."""

    tag: str = pa.Field(
        str_matches=r"^[a-z][a-z0-9_]{1,39}$",
        title="资质",
        description="srdi 专精特新中小企业, hightech 高新技术企业, tech_sme 科技型中小企业, "
        "innovative_sme 创新型中小企业, …",
    )
    level: str = _one_of(("national", "provincial", "city"), "级别", "issuing level", nullable=True)
    granted_on: pl.Date = _day("认定日期", "day granted")
    valid_to: pl.Date = _day("有效期至", "last day of validity")


QUALIFICATIONS = Source(
    "qualifications",
    Qualifications,
    key=("uscc", "tag"),
    rules=(
        VALID_CODE,
        _not_before("known_on", "granted_on"),
        _not_before("valid_to", "granted_on"),
    ),
)


STATEMENT_ITEMS = (
    "revenue",
    "cogs",
    "profit",
    "receivables",
    "inventory",
    "prepayments",
    "payables",
    "advances_received",
    "own_funds",
    "other_funding",
    "expected_revenue",
)


class FinancialStatements(Contract):
    """财务报表: the inputs of the working-capital need, one item a row."""

    period_end: pl.Date = _day("期末", "last day of the fiscal period")
    item: str = _one_of(
        STATEMENT_ITEMS,
        "科目",
        "营业收入, 营业成本, 利润, 应收账款, 存货, 预付账款, 应付账款, 预收账款, 自有资金, 其他渠道资金, 预计营业收入; "
        "balances at period end",
    )
    value_fen: int = _fen("金额", "fen", least=-MOST_FEN)
    audited: bool = pa.Field(title="是否审计", description="from audited accounts")


FINANCIAL_STATEMENTS = Source(
    "financial_statements",
    FinancialStatements,
    key=("uscc", "period_end", "item"),
    happened_on="period_end",
    total_of="value_fen",
    rules=(VALID_CODE, _not_before("known_on", "period_end")),
)


class SocialInsurance(Contract):
    """社保缴纳: one row a month."""

    month: pl.Date = _day("所属月份", "first day of the month")
    headcount: int = pa.Field(ge=0, le=5_000_000, title="参保人数", description="persons insured")
    base_fen: int = _fen("缴费基数", "sum of contribution bases, fen")
    arrears_fen: int = _fen("欠缴金额", "contributions owed at the end of the month, fen")


SOCIAL_INSURANCE = Source(
    "social_insurance",
    SocialInsurance,
    key=("uscc", "month"),
    is_delivered=True,
    happened_on="month",
    total_of="base_fen",
    stands_until=pl.max_horizontal("month", "known_on"),
    rules=(
        VALID_CODE,
        _not_before("known_on", "month"),
        Rule("month_not_first_day", ("month",), pl.col("month").dt.day() == 1, "month is the first day of a month"),
    ),
)


class InnovationIndicators(Contract):
    """创新积分指标: primitive reported facts, never recomputed from others."""

    year: int = pa.Field(ge=1949, le=2199, title="年度", description="fiscal year")
    indicator_id: str = pa.Field(
        str_matches=r"^[a-z][a-z0-9_]{1,59}$", title="指标", description="indicator of a ruleset"
    )
    value: int = pa.Field(
        ge=-MOST_FEN, le=MOST_FEN, nullable=True, title="数值", description="in the unit named; null unless reported"
    )
    unit: str = _one_of(UNITS, "单位", "fen, bp (ratio in 1/10,000) or count")
    state: str = _one_of(("reported", "not_applicable", "missing"), "状态", "reported, not applicable or missing")


INNOVATION_INDICATORS = Source(
    "innovation_indicators",
    InnovationIndicators,
    key=("uscc", "year", "indicator_id"),
    rules=(
        VALID_CODE,
        Rule(
            "value_without_report",
            ("value", "state"),
            (pl.col("state") == "reported") == pl.col("value").is_not_null(),
            "value is there if and only if state is reported",
        ),
        Rule(
            "known_on_before_year",
            ("known_on", "year"),
            pl.col("known_on").dt.year() >= pl.col("year"),
            "known_on is not before the fiscal year",
        ),
    ),
)


class TaxFilings(Contract):
    """纳税申报: one row a period and kind of tax; small firms file by quarter."""

    period_from: pl.Date = _day("所属期起", "first day of the period")
    period_to: pl.Date = _day("所属期止", "last day of the period")
    tax_kind: str = _one_of(("vat", "cit", "other"), "税种", "增值税, 企业所得税, 其他")
    declared_sales_fen: int = _fen("申报销售额", "sales declared, net of VAT, fen; 0 for taxes not on sales")
    tax_fen: int = _fen("应纳税额", "tax due for the period, fen")
    refund_fen: int = _fen("退税额", "refunded, fen")
    paid_on: pl.Date = _day("缴款日期", "day paid in full; null: not yet", nullable=True)
    late_days: int = pa.Field(
        ge=0, le=36_500, title="逾期申报天数", description="days filed or paid after the deadline"
    )
    arrears_fen: int = _fen("欠税金额", "of this period still owed, fen")


TAX_FILINGS = Source(
    "tax_filings",
    TaxFilings,
    key=("uscc", "period_from", "period_to", "tax_kind"),
    is_delivered=True,
    happened_on="period_to",
    total_of="tax_fen",
    stands_until=pl.when(pl.col("arrears_fen") == 0).then(pl.max_horizontal("period_to", "known_on")),
    rules=(
        VALID_CODE,
        _not_before("period_to", "period_from"),
        _not_before("known_on", "period_to"),
        _not_before("known_on", "paid_on"),
        Rule(
            "arrears_above_tax",
            ("arrears_fen", "tax_fen"),
            pl.col("arrears_fen") <= pl.col("tax_fen"),
            "arrears_fen is not above tax_fen",
        ),
        Rule(
            "arrears_after_payment",
            ("arrears_fen", "paid_on"),
            pl.col("paid_on").is_null() | (pl.col("arrears_fen") == 0),
            "what is paid in full leaves no arrears",
        ),
    ),
)


class TaxpayerRatings(Contract):
    """纳税信用级别: yearly grade by the tax authority; A, B, M, C, D today, the list is open."""

    year: int = pa.Field(ge=1949, le=2199, title="评价年度", description="year judged")
    grade: str = pa.Field(
        str_matches=r"^[A-Z]{1,2}$", title="纳税信用级别", description="A, B, M, C, D, or a later one"
    )


TAXPAYER_RATINGS = Source(
    "taxpayer_ratings",
    TaxpayerRatings,
    key=("uscc", "year"),
    is_delivered=True,
    rules=(
        VALID_CODE,
        Rule(
            "known_on_before_year",
            ("known_on", "year"),
            pl.col("known_on").dt.year() >= pl.col("year"),
            "known_on is not before the year judged",
        ),
    ),
)


class Invoices(Contract):
    """增值税发票: bought (`in` 进项) and sold (`out` 销项).

    Negative ones are red letters 红字 and count; void ones do not.
    """

    direction: str = _one_of(DIRECTIONS, "方向", "in: bought 进项, out: sold 销项")
    invoice_no: str = pa.Field(
        str_matches=r"^[0-9A-Z]{8,30}$",
        title="发票号码",
        description="code and number, or the 20 digits of a fully digital invoice",
    )
    counterparty_id: str = _text("对方", "buyer of a sale, seller of a purchase: credit code or other id", most=40)
    issued_on: pl.Date = _day("开票日期", "day of issue")
    net_fen: int = _fen("不含税金额", "net of VAT, fen", least=-MOST_INVOICE_FEN, most=MOST_INVOICE_FEN)
    tax_fen: int = _fen("税额", "VAT, fen", least=-MOST_INVOICE_FEN, most=MOST_INVOICE_FEN)
    gross_fen: int = _fen("价税合计", "net_fen + tax_fen", least=-2 * MOST_INVOICE_FEN, most=2 * MOST_INVOICE_FEN)
    is_void: bool = pa.Field(title="是否作废", description="cancelled before booking: never counted as a sale")
    red_of: str = pa.Field(
        str_matches=r"^[0-9A-Z]{8,30}$",
        nullable=True,
        title="对应蓝字发票",
        description="number of the invoice that this red letter reverses",
    )


INVOICES = Source(
    "invoices",
    Invoices,
    key=("uscc", "direction", "invoice_no", "counterparty_id", "issued_on"),
    is_delivered=True,
    happened_on="issued_on",
    total_of="gross_fen",
    rules=(
        VALID_CODE,
        *_party("counterparty_id", upper=True),
        _not_before("known_on", "issued_on"),
        Rule(
            "gross_not_net_plus_tax",
            ("gross_fen", "net_fen", "tax_fen"),
            pl.col("gross_fen") == pl.col("net_fen") + pl.col("tax_fen"),
            "gross_fen = net_fen + tax_fen, to the fen",
        ),
        Rule(
            "red_of_on_positive",
            ("red_of", "net_fen"),
            pl.col("red_of").is_null() | (pl.col("net_fen") <= 0),
            "only a red letter (net_fen not above 0) reverses another invoice",
        ),
        Rule(
            "digital_invoice_void",
            ("invoice_no", "is_void"),
            ~(pl.col("is_void") & pl.col("invoice_no").str.contains(r"^[0-9]{20}$")),
            "a fully digital invoice (20 digits) is reversed, never voided",
        ),
    ),
)


UNSECURED_KINDS = ("unsecured", "working_capital")


class Debts(Contract):
    """信贷记录: credit lines and loans from a credit report, one row a debt and reporting day."""

    lender_id: str = _text("债权人", "lender", most=40)
    debt_id: str = _text("账户", "account", most=60)
    as_of: pl.Date = _day("报告日", "the day the balance is of")
    kind: str = _one_of(
        ("unsecured", "working_capital", "secured", "guarantee", "other"),
        "类型",
        "信用, 流动资金, 抵质押, 对外担保, 其他",
    )
    balance_fen: int = _fen("余额", "drawn, fen")
    limit_fen: int = _fen("授信额度", "credit line, fen; the balance itself where there is no line")
    overdue_days: int = pa.Field(ge=0, le=36_500, title="逾期天数", description="days past due at as_of")
    five_class: str = _one_of(
        ("normal", "special_mention", "substandard", "doubtful", "loss"), "五级分类", "正常, 关注, 次级, 可疑, 损失"
    )
    opened_on: pl.Date = _day("开立日期", "day opened")
    closed_on: pl.Date = _day("结清日期", "day closed; null: open", nullable=True)


DEBTS = Source(
    "debts",
    Debts,
    key=("uscc", "lender_id", "debt_id", "as_of"),
    is_delivered=True,
    happened_on="as_of",
    total_of="balance_fen",
    stands_until=pl.when(pl.col("closed_on").is_not_null()).then("as_of"),
    reports_on=("uscc", "lender_id", "debt_id"),
    rules=(
        VALID_CODE,
        *_party("lender_id", upper=False),
        *_party("debt_id", upper=False),
        _not_before("known_on", "as_of"),
        _not_before("as_of", "opened_on"),
        _not_before("closed_on", "opened_on"),
        _not_before("as_of", "closed_on"),
    ),
)


class PublicRecords(Contract):
    """公共信用记录: listings, penalties and lawsuits. A removal is a new row, with removed_on."""

    kind: str = _one_of(
        (
            "judgment_defaulter",
            "enforcement",
            "serious_violation",
            "abnormal_operation",
            "tax_violation",
            "administrative_penalty",
            "lawsuit_defendant",
        ),
        "类型",
        "失信被执行人, 被执行人, 严重违法失信, 经营异常, 重大税收违法, 行政处罚, 涉诉(被告)",
    )
    listed_on: pl.Date = _day("列入日期", "day listed, fined or sued")
    removed_on: pl.Date = _day("移出日期", "day removed or settled; null: stands", nullable=True)


PUBLIC_RECORDS = Source(
    "public_records",
    PublicRecords,
    key=("uscc", "kind", "listed_on"),
    is_delivered=True,
    happened_on="listed_on",
    stands_until=pl.col("removed_on"),
    rules=(
        VALID_CODE,
        _not_before("known_on", "listed_on"),
        _not_before("removed_on", "listed_on"),
        _not_before("known_on", "removed_on"),
    ),
)


class LoanOutcomes(Contract):
    """贷款结果: what became of a loan; the labels. They never count for the default as-of day.

    Default 违约: more than 90 days past due, five-class 次级 or worse, written off, compensated by a guarantor, or
    restructured in distress. Renewals without repayment 无还本续贷 hide days past due, so these count as well.
    """

    lender_id: str = _text("债权人", "lender", most=40)
    loan_id: str = _text("借据", "loan", most=60)
    opened_on: pl.Date = _day("放款日期", "day paid out: features are taken as of this day")
    term_months: int = pa.Field(ge=1, le=600, title="期限", description="months agreed")
    amount_fen: int = _fen("贷款金额", "principal, fen", nullable=True)
    defaulted: bool = pa.Field(title="是否违约", description="default seen while observed")
    defaulted_on: pl.Date = _day("违约日期", "day of default; null: none, or undated", nullable=True)
    observed_until: pl.Date = _day("观察截止", "last day the loan was watched")
    loss_fen: int = _fen("损失", "lost after recoveries, fen", nullable=True)


LOAN_OUTCOMES = Source(
    "loan_outcomes",
    LoanOutcomes,
    key=("uscc", "lender_id", "loan_id"),
    is_delivered=True,
    happened_on="opened_on",
    rules=(
        VALID_CODE,
        *_party("lender_id", upper=False),
        *_party("loan_id", upper=False),
        _not_before("observed_until", "opened_on"),
        _not_before("known_on", "opened_on"),
        _not_before("known_on", "observed_until"),
        _not_before("defaulted_on", "opened_on"),
        _not_before("observed_until", "defaulted_on"),
        Rule(
            "default_day_without_default",
            ("defaulted", "defaulted_on"),
            pl.col("defaulted") | pl.col("defaulted_on").is_null(),
            "defaulted_on is there only if defaulted",
        ),
    ),
)


class Feeds(Contract):
    """数据完整性标记: what a supplier says it delivered.

    Reconciled with the rows, it parts "clean" from "not delivered". A mark covers the rows of one source (and
    direction, for invoices) that happened in its period and were known by the mark's own `known_on`. `row_count`
    counts the rows, corrections as well, but what only repeats a row once: so a correction cannot be left out unseen
    either. `total_fen` sums the amount named in the source's contract over the latest known row of each key, void
    invoices included.

    What stands is told by every mark of its time, so that it cannot be left out together with the one mark in which it
    began. A mark of such a source covers each row that stood on any day of its period, as known on the mark's own day:
    a public record from `listed_on` to `removed_on`; a report of a debt from `as_of` until the day before the next
    report of that debt, or for that day alone if it says closed; a tax filing with arrears from `period_to` until a
    correction says that nothing is owed. What is reported after its period stands until it is known: a filing from
    `period_to`, a month of insurance from `month`, each to its `known_on`; else a return filed after the mark of its
    quarter would be in none. Any other row counts in the period it happened in.
    """

    source: str = _one_of(
        (
            "enterprises",
            "qualifications",
            "financial_statements",
            "social_insurance",
            "innovation_indicators",
            "tax_filings",
            "taxpayer_ratings",
            "invoices",
            "debts",
            "public_records",
            "loan_outcomes",
        ),
        "来源",
        "the source it speaks of",
    )
    direction: str = _one_of(DIRECTIONS, "方向", "for invoices only: in or out", nullable=True)
    period_from: pl.Date = _day("起", "first day covered")
    period_to: pl.Date = _day("止", "last day covered")
    row_count: int = pa.Field(
        ge=0, le=10**9, title="行数", description="rows that happened, or stood, in the period, with their corrections"
    )
    total_fen: int = _fen(
        "金额合计", "sum of the source's amount, fen; null: no amount", least=-(10**17), most=10**17, nullable=True
    )


FEEDS = Source(
    "feeds",
    Feeds,
    key=("uscc", "source", "direction", "period_from", "period_to"),
    is_delivered=True,
    rules=(
        VALID_CODE,
        _not_before("period_to", "period_from"),
        _not_before("known_on", "period_to"),  # nobody has delivered the future
        Rule(
            "direction_of_invoices_only",
            ("source", "direction"),
            (pl.col("source") == "invoices") == pl.col("direction").is_not_null(),
            "direction is there if and only if source is invoices",
        ),
    ),
)


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        ENTERPRISES,
        QUALIFICATIONS,
        FINANCIAL_STATEMENTS,
        SOCIAL_INSURANCE,
        INNOVATION_INDICATORS,
        TAX_FILINGS,
        TAXPAYER_RATINGS,
        INVOICES,
        DEBTS,
        PUBLIC_RECORDS,
        LOAN_OUTCOMES,
        FEEDS,
    )
}
"""Each source by the name of its file."""


@dataclass(frozen=True)
class Sources:
    """All checked facts of a park or of one enterprise; a source that was not delivered is an empty frame.

    Attributes:
        doubts: `uscc`, `source`, `direction` (null unless invoices) and `known_on` of every quarantined row that is
            not a repeat, nor an applicant's word that would not count, and whose enterprise could be read: that
            enterprise's feed counts as incomplete from `known_on` on (null: always).
    """

    enterprises: DataFrame[Enterprises]
    qualifications: DataFrame[Qualifications]
    financial_statements: DataFrame[FinancialStatements]
    social_insurance: DataFrame[SocialInsurance]
    innovation_indicators: DataFrame[InnovationIndicators]
    tax_filings: DataFrame[TaxFilings]
    taxpayer_ratings: DataFrame[TaxpayerRatings]
    invoices: DataFrame[Invoices]
    debts: DataFrame[Debts]
    public_records: DataFrame[PublicRecords]
    loan_outcomes: DataFrame[LoanOutcomes]
    feeds: DataFrame[Feeds]
    doubts: pl.DataFrame
