"""Scope, credit and integrity rules: who is eligible, who goes to a person, and what is still to be supplied."""

from dataclasses import dataclass

import polars as pl

from scoring.policy import Policy, Rule
from scoring.rules import expression

PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"
ELIGIBLE, REFER, INELIGIBLE = "eligible", "refer", "ineligible"


@dataclass(frozen=True)
class Verdicts:
    """What the rules of a policy say of each row of a frame.

    Attributes:
        answers: one column a rule, named by its code: `pass`, `fail` or `unknown`.
        outcome: `eligible`, `refer` or `ineligible`, one per row.
        conditions: sorted names of what the bank must still check, List(String).
    """

    answers: pl.DataFrame
    outcome: pl.Series
    conditions: pl.Series


def verdicts(frame: pl.DataFrame, policy: Policy) -> Verdicts:
    """Put every rule to every row: a failure counts before "cannot tell", ineligible before refer.

    Nothing is approved or declined by a null: what cannot be told refers the firm to a person, or leaves a condition
    that the bank must clear.
    """
    answers = frame.select(_answer(rule).alias(rule.code) for rule in policy.rules)
    if not policy.rules:
        count = frame.height
        eligible = pl.Series("outcome", [ELIGIBLE] * count, dtype=pl.String)
        return Verdicts(pl.DataFrame(), eligible, pl.Series("conditions", [[]] * count, dtype=pl.List(pl.String)))
    ineligible = [pl.col(rule.code) == FAIL for rule in policy.rules if rule.on_fail == INELIGIBLE]
    refer = [pl.col(rule.code) == FAIL for rule in policy.rules if rule.on_fail == REFER]
    refer += [pl.col(rule.code) == UNKNOWN for rule in policy.rules if rule.on_unknown == REFER]
    outcome = (
        pl.when(pl.any_horizontal(ineligible or [pl.lit(value=False)]))
        .then(pl.lit(INELIGIBLE))
        .when(pl.any_horizontal(refer or [pl.lit(value=False)]))
        .then(pl.lit(REFER))
        .otherwise(pl.lit(ELIGIBLE))
    )
    open_conditions = [
        pl.when(pl.col(rule.code) == UNKNOWN).then(pl.lit(rule.condition))
        for rule in policy.rules
        if rule.condition is not None
    ]
    conditions = (
        pl.concat_list(open_conditions or [pl.lit(None, pl.String)]).list.drop_nulls().list.unique().list.sort()
    )
    found = answers.select(outcome=outcome, conditions=conditions)
    return Verdicts(answers, found["outcome"], found["conditions"])


def _answer(rule: Rule) -> pl.Expr:
    passes = expression(rule.passes)
    return pl.when(passes.is_null()).then(pl.lit(UNKNOWN)).when(passes).then(pl.lit(PASS)).otherwise(pl.lit(FAIL))
