"""A policy: every number and rule by which a decision is made, as dated data with a source for each.

Files are never edited; a change is a new file with a later date. The loader is closed to unknown and repeated keys,
names every problem at once, and refuses a table that runs the wrong way, so that a policy cannot break the promise
that better facts never hurt.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from scoring.catalogue import CATALOGUE
from scoring.rules import better_unknown, expression, needs, wrong_ways
from scoring.setting import MOST_DAYS, MOST_FEN, Setting, Text, measured
from scoring.strict_yaml import Record, record

NAME = r"^[a-z][a-z0-9-]{1,40}$"
CODE = r"^[A-Z][A-Z0-9_]{1,40}$"
GRADE = r"^[A-Z][A-Z0-9+-]{0,3}$"
M = TypeVar("M", bound=Record)
BP = 10_000
"""Ten thousand basis points are the whole."""
BANKS_OWN = ("debts_feed",)
"""What only a bank can look up, with the borrower's authorisation: not knowing it may be answered by a condition."""
OWN_WORD = {
    "srdi_live": "srdi_own_word",
    "tech_live": "tech_own_word",
    "points_share_bp": "points_own_word_bp",
    "innovation_points": "points_own_word_bp",
}
"""Of what an applicant may supply itself: the column that counts, and the one that says whose word it is."""

Fen = Annotated[int, Field(ge=0, le=MOST_FEN)]
Bp = Annotated[int, Field(ge=0, le=BP)]
Multiple = Annotated[int, Field(ge=0, le=1_000_000)]
Sql = Annotated[str, Field(min_length=1, max_length=2_000)]


class Words(Record):
    """One sentence in both languages."""

    zh: Text
    en: Text


class GradeBand(Record):
    """PD below `pd_below_bp` (and not below the band before) has this grade; `tax_multiple_bp` is m, 10,000 = once."""

    grade: Annotated[str, Field(pattern=GRADE)]
    pd_below_bp: Annotated[int, Field(ge=1, le=BP)]
    tax_multiple_bp: Multiple


class Grades(Record):
    """Bands of PD from best to worst; the last one ends at 10,000 bp."""

    source: Text
    why: Text
    bands: Annotated[tuple[GradeBand, ...], Field(min_length=2, max_length=30)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        problems = _falls(self.bands, "pd_below_bp", lambda a, b: a < b, "pd_below_bp must rise from band to band")
        problems += _falls(self.bands, "tax_multiple_bp", lambda a, b: a >= b, "tax_multiple_bp must not rise with PD")
        if self.bands[-1].pd_below_bp != BP:
            problems.append("the last band must end at 10000 bp")
        if len({band.grade for band in self.bands}) < len(self.bands):
            problems.append("a grade is named twice")
        return _refused(self, problems)


class HaircutStep(Record):
    """While `pd_hi` is at most `pd_hi_at_most_bp`, this share of the capacity counts."""

    pd_hi_at_most_bp: Annotated[int, Field(ge=0, le=BP)]
    share_bp: Bp


class Haircut(Record):
    """phi(pd_hi): a step table that never rises; beyond its last step the share is 0."""

    source: Text
    why: Text
    steps: Annotated[tuple[HaircutStep, ...], Field(min_length=1, max_length=50)]

    @model_validator(mode="after")
    def _never_rises(self) -> Self:
        problems = _falls(self.steps, "pd_hi_at_most_bp", lambda a, b: a < b, "pd_hi_at_most_bp must rise")
        problems += _falls(self.steps, "share_bp", lambda a, b: a >= b, "share_bp must not rise with pd_hi")
        return _refused(self, problems)


class UpliftStep(Record):
    """From this share of the ruleset's full scale on, the soft terms are multiplied by `uplift_bp`."""

    points_share_at_least_bp: Bp
    uplift_bp: Annotated[int, Field(ge=BP, le=13_000)]


class Uplift(Record):
    """psi(points) in [1, 1.3]: a step table that never falls; below its first step it is 1."""

    source: Text
    why: Text
    steps: Annotated[tuple[UpliftStep, ...], Field(max_length=50)]

    @model_validator(mode="after")
    def _never_falls(self) -> Self:
        problems = _falls(
            self.steps, "points_share_at_least_bp", lambda a, b: a < b, "points_share_at_least_bp must rise"
        )
        problems += _falls(self.steps, "uplift_bp", lambda a, b: a <= b, "uplift_bp must not fall with points")
        return _refused(self, problems)


class AmountStep(Record):
    """From this share of the full scale on, the points branch gives `amount_fen`."""

    points_share_at_least_bp: Bp
    amount_fen: Fen


class PointsBranch(Record):
    """Credit on innovation points alone, whatever the sales: no PD gate, its own rules, rate and amounts.

    Attributes:
        source: where it comes from.
        why: what it is for.
        open_when: rule that a firm must pass.
        clean_when: rule on conduct that closes the branch unless it passes; null closes it.
        rate_bp: the programme's yearly rate.
        steps: amount by points; never falls.
    """

    source: Text
    why: Text
    open_when: Sql
    clean_when: Sql
    rate_bp: Annotated[int, Field(ge=1, le=BP)]
    steps: Annotated[tuple[AmountStep, ...], Field(min_length=1, max_length=50)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        problems = _falls(
            self.steps, "points_share_at_least_bp", lambda a, b: a < b, "points_share_at_least_bp must rise"
        )
        problems += _falls(self.steps, "amount_fen", lambda a, b: a <= b, "amount_fen must not fall with points")
        for name, sql in (("open_when", self.open_when), ("clean_when", self.clean_when)):
            wrong = _rule_problems(name, sql, null_may_pass=True)
            problems += wrong or [
                f"{name}: passes while {column} is not known, so that withholding it would open the branch"
                for column in _rewarded_unknown(sql)
                if CATALOGUE[column].feeds != BANKS_OWN
            ]
        return _refused(self, problems)


class StatusCap(Record):
    """A hard cap for firms of a status; the highest that applies counts, the ordinary cap otherwise."""

    code: Annotated[str, Field(pattern=CODE)]
    when: Sql
    cap_fen: Fen
    source: Text
    words: Words

    @model_validator(mode="after")
    def _sound(self) -> Self:
        return _refused(self, _rule_problems("when", self.when))


class Need(Record):
    """The regulator's need W: applied wherever it is evidenced; above `required_above` it is required."""

    required_above: Setting

    @model_validator(mode="after")
    def _sound(self) -> Self:
        return _refused(self, measured(self, "fen", MOST_FEN, "required_above"))


class Limit(Record):
    """The terms of the limit (see `scoring.limit`)."""

    most_sales_share: Setting
    sales_share_without_tax: Setting
    most_debt_share: Setting
    most_pd_hi: Setting
    declared_sales_required: bool
    ordinary_cap: Setting
    status_caps: tuple[StatusCap, ...]
    group_cap: Setting
    need: Need | None
    minimum: Setting
    step: Setting

    @model_validator(mode="after")
    def _sound(self) -> Self:
        problems = measured(
            self, "bp", BP, "most_sales_share", "sales_share_without_tax", "most_debt_share", "most_pd_hi"
        )
        problems += measured(self, "fen", MOST_FEN, "ordinary_cap", "group_cap", "minimum", "step")
        if self.sales_share_without_tax.value > self.most_sales_share.value:
            problems.append("sales_share_without_tax is above most_sales_share")
        if self.step.value < 1:
            problems.append("step must be at least 1 fen")
        elif self.minimum.value % self.step.value:
            problems.append("minimum must be a whole number of steps")
        return _refused(self, problems)


class Price(Record):
    """The break-even reference rate and its bounds (see `scoring.price`); all in bp."""

    funding: Setting
    operating: Setting
    lgd: Setting
    cover: Setting
    hurdle: Setting
    risk_weight: Setting
    capital_ratio: Setting
    utilisation: Setting
    exposure: Setting
    least_rate: Setting
    most_rate: Setting

    @model_validator(mode="after")
    def _sound(self) -> Self:
        shares = ("lgd", "cover", "utilisation", "exposure")
        problems = measured(self, "bp", 10 * BP, *(name for name in type(self).model_fields if name not in shares))
        problems += measured(self, "bp", BP, *shares)
        if self.utilisation.value < 1:
            problems.append("utilisation must be above 0")
        if self.least_rate.value > self.most_rate.value:
            problems.append("least_rate is above most_rate")
        return _refused(self, problems)


class Rule(Record):
    """One rule on a firm.

    Attributes:
        code: stable reason code.
        kind: `scope` of the programme (no matter of risk), `credit`, or `integrity` of the data.
        passes: expression over catalogue columns; null: cannot tell.
        on_fail: what a failure makes of the firm.
        on_unknown: what "cannot tell" makes of it; `condition` leaves it eligible, with a condition for the bank.
        condition: the condition's name.
        evidence: where the fact behind it comes from; a firm's promise is none.
        failed: what is said of a failure.
        unknown: what is said, and what to supply, when it cannot be told.
        source: where the rule comes from.
    """

    code: Annotated[str, Field(pattern=CODE)]
    kind: Literal["scope", "credit", "integrity"]
    passes: Sql
    on_fail: Literal["ineligible", "refer"]
    on_unknown: Literal["refer", "condition"]
    condition: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,40}$")] | None = None
    evidence: Literal["registry", "feed", "public_record", "bank_check"]
    failed: Words
    unknown: Words
    source: Text

    @model_validator(mode="after")
    def _sound(self) -> Self:
        problems = _rule_problems("passes", self.passes, ordered=self.kind != "scope")
        if (self.on_unknown == "condition") != (self.condition is not None):
            problems.append("condition is there if and only if on_unknown is condition")
        return _refused(self, problems)


class Policy(Record):
    """A whole policy, as read from one file."""

    name: Annotated[str, Field(pattern=NAME)]
    version: date
    title: Words
    approved_by: Text
    ruleset: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,60}$")] | None
    central_tendency: Setting
    quote_valid: Setting
    grades: Grades
    haircut: Haircut
    uplift: Uplift
    limit: Limit
    points_branch: PointsBranch | None
    price: Price
    rules: Annotated[tuple[Rule, ...], Field(max_length=100)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        problems = []
        codes = [rule.code for rule in self.rules] + [cap.code for cap in self.limit.status_caps]
        problems += [f"code {code} is used twice" for code in sorted({code for code in codes if codes.count(code) > 1})]
        problems += measured(self, "bp", BP - 1, "central_tendency", least=1)
        problems += measured(self, "days", MOST_DAYS, "quote_valid", least=1)
        if self.ruleset is None and (self.uplift.steps or self.points_branch):
            problems.append("points are used, but no ruleset is named")
        return _refused(self, problems + self._unevidenced() + self._untold())

    def _untold(self) -> list[str]:
        """What may be unknown of debts where the points branch opens without a condition for the bank."""
        branch = self.points_branch
        may_pass = {*_rewarded_unknown(branch.open_when), *_rewarded_unknown(branch.clean_when)} if branch else set()
        asking = [rule.passes for rule in self.rules if rule.condition is not None]
        return [
            f"points_branch opens while {column} is not known, but no rule leaves a condition then: "
            "withholding it would raise a limit untold"
            for column in sorted(may_pass)
            if not any(needs(passes, column) for passes in asking)
        ]

    def _unevidenced(self) -> list[str]:
        """What the policy counts of an applicant's own word without telling the bank."""
        asked, counted = _named_in(rule.passes for rule in self.rules), self._counted()
        if self.points_steps:
            counted.add("points_share_bp")
        return [
            f"{fact} counts, but no rule looks at {word}: an applicant's own word would be enough"
            for fact, word in OWN_WORD.items()
            if fact in counted and word not in asked
        ]

    def _counted(self) -> set[str]:
        """The columns that rules, caps and the points branch name."""
        branch = [self.points_branch.open_when, self.points_branch.clean_when] if self.points_branch else []
        return _named_in(
            [*(rule.passes for rule in self.rules), *branch, *(cap.when for cap in self.limit.status_caps)]
        )

    @property
    def points_are_asked(self) -> bool:
        """Does a rule, a cap or the branch name points, so that they count below and between the steps as well?"""
        return bool(self._counted() & {"points_share_bp", "innovation_points"})

    @property
    def points_steps(self) -> tuple[int, ...]:
        """The shares of points, in bp, from which on points give more; rising."""
        steps = {step.points_share_at_least_bp for step in self.uplift.steps}
        if self.points_branch is not None:
            steps |= {step.points_share_at_least_bp for step in self.points_branch.steps}
        return tuple(sorted(steps))

    @property
    def label(self) -> str:
        """`name@date`, for people."""
        return f"{self.name}@{self.version.isoformat()}"


def parse_policy(text: str) -> Policy:
    """Read a policy.

    Raises:
        PolicyError: with every unknown, repeated or missing key, wrong value, rule and table at once.
    """
    return record(text, Policy, "policy")


def policy_version(policy: Policy, *texts: str) -> str:
    """`name@date#hash`: the hash covers the policy file and the ruleset and size files it decides with."""
    digest = sha256("\x00".join(texts).encode()).hexdigest()
    return f"{policy.label}#{digest[:12]}"


def _refused(whole: M, problems: Sequence[str]) -> M:
    if problems:
        raise ValueError("\n".join(problems))
    return whole


def _named_in(rules: Iterable[str]) -> set[str]:
    return {name for sql in rules for name in expression(sql).meta.root_names()}


def _rewarded_unknown(sql: str) -> list[str]:
    """The columns that are better left unknown: the rule passes then, and fails for a value that is known."""
    known_only = wrong_ways(sql, null_may_pass=True)
    return sorted({*wrong_ways(sql), *better_unknown(sql)} - {*known_only})


def _falls(steps: Sequence[Record], name: str, fits: Callable[[int, int], bool], problem: str) -> list[str]:
    values = [getattr(step, name) for step in steps]
    return [problem] if any(not fits(a, b) for a, b in pairwise(values)) else []


def _rule_problems(name: str, sql: str, *, ordered: bool = True, null_may_pass: bool = False) -> list[str]:
    try:
        expression(sql)
        wrong = wrong_ways(sql, null_may_pass=null_may_pass) if ordered else []
    except ValueError as error:
        return [f"{name}: {line}" for line in str(error).splitlines()]
    return [
        f"{name}: runs the wrong way in {column}: a safer value may not turn a pass into a failure" for column in wrong
    ]
