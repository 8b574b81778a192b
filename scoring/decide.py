"""The one place where a limit is born: batch, single request and replay all come through `decide`."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from scoring.catalogue import FEEDS
from scoring.eligibility import ELIGIBLE, INELIGIBLE, verdicts
from scoring.features import taken_at_their_word
from scoring.limit import ASKED, PD, PD_HI, binding, sized
from scoring.policy import Policy
from scoring.price import rate_bp
from scoring.reasons import GROUPS, reasons_json
from scoring.score import PPB, grade, parts_per_billion, score


@dataclass(frozen=True)
class Estimate:
    """Default probabilities of the rows of a frame, Float64 in [0, 1]: `pd` prices, `pd_hi` (never below it) sizes."""

    pd: pl.Series
    pd_hi: pl.Series


@dataclass(frozen=True)
class Improvement:
    """The rows of a frame with one reason group at its next better reference, and their estimate."""

    features: pl.DataFrame
    estimate: Estimate


@dataclass(frozen=True)
class Risk:
    """What a model says of the rows of a frame; `scoring` knows probabilities, not models.

    Attributes:
        now: with what an incomplete feed cannot tell held unknown.
        if_clean: with the delivered rows taken at their word (`features.taken_at_their_word`).
        improvements: reason group name → the rows with that group improved (`reasons.improved`).
    """

    now: Estimate
    if_clean: Estimate
    improvements: Mapping[str, Improvement]


def decide(frame: pl.DataFrame, risk: Risk, policy: Policy, *, asked: pl.Series | None = None) -> pl.DataFrame:
    """Decide on firms: one row per row of `frame`, in its order; a row's answer does not depend on its neighbours.

    Args:
        frame: features with the columns under the policy (`under_policy`), any number of rows.
        risk: estimates of the same rows.
        policy: the numbers in force.
        asked: amounts asked in fen, Int64 aligned with the rows; null or absent: none named.

    Returns:
        `uscc`, `outcome`, `limit_fen` (0 unless eligible, never null), `conditional_limit_fen` (what the firm would
        get if everything that cannot be told turns out clean; 0 if ineligible either way), `conditions`, `rate_bp`
        (null without a limit), `pd_12m`, `pd_hi`, `score`, `grade`, `innovation_points`, `binding` (null when
        ineligible), `reasons`, `missing_feeds`, and `terms`, a struct with every term of the limit.
    """
    amounts = pl.Series(ASKED, [None] * frame.height, dtype=pl.Int64) if asked is None else asked.alias(ASKED)
    rules = verdicts(frame, policy)
    terms = sized(_with_estimate(frame, risk.now, amounts), policy)
    clean_frame = taken_at_their_word(frame)
    clean_rules = verdicts(clean_frame, policy)
    clean = sized(_with_estimate(clean_frame, risk.if_clean, amounts), policy)
    gains = {
        group.code: _gain(risk.improvements[group.name], amounts, policy, terms["limit_fen"])
        for group in GROUPS
        if group.name in risk.improvements
    }
    bound = terms.select(binding=binding(policy)).to_series()
    reasons = reasons_json(policy, rules.answers, bound, terms["limit_fen"], gains)
    decided = pl.DataFrame(
        {
            "uscc": frame["uscc"],
            "outcome": rules.outcome,
            "sized_fen": terms["limit_fen"],
            "clean_outcome": clean_rules.outcome,
            "clean_fen": clean["limit_fen"],
            "conditions": rules.conditions,
            PD: terms[PD],
            # numpy divides each value; polars multiplies long columns by a rounded reciprocal, with other last bits.
            "pd_12m": terms[PD].to_numpy() / PPB,
            "pd_hi": terms[PD_HI].to_numpy() / PPB,
            "branch": terms["branch"],
            "innovation_points": frame["innovation_points"],
            "bound": bound,
            "reasons": reasons,
            "missing_feeds": _missing_feeds(frame),
            "terms": terms.drop(PD, PD_HI).to_struct("terms"),
        }
    )
    return decided.select(_answers(policy))


def _answers(policy: Policy) -> list[pl.Expr]:
    eligible = pl.col("outcome") == ELIGIBLE
    barred = (pl.col("outcome") == INELIGIBLE) | (pl.col("clean_outcome") == INELIGIBLE)
    limit = pl.when(eligible).then(pl.col("sized_fen")).otherwise(0)
    offered = pl.max_horizontal(limit, pl.when(barred).then(0).otherwise(pl.col("clean_fen")))
    programme_rate = policy.points_branch.rate_bp if policy.points_branch is not None else None
    rate = (
        pl.when(pl.col("branch") == "points")
        .then(pl.lit(programme_rate, pl.Int64))
        .otherwise(rate_bp(pl.col(PD), policy.price))
    )
    return [
        pl.col("uscc"),
        pl.col("outcome"),
        limit.cast(pl.Int64).alias("limit_fen"),
        offered.cast(pl.Int64).alias("conditional_limit_fen"),
        pl.col("conditions"),
        pl.when(limit > 0).then(rate).cast(pl.Int32).alias("rate_bp"),
        pl.col("pd_12m"),
        pl.col("pd_hi"),
        score(pl.col(PD)).alias("score"),
        grade(pl.col(PD), policy.grades).alias("grade"),
        pl.col("innovation_points"),
        pl.when(pl.col("outcome") != INELIGIBLE).then(pl.col("bound")).alias("binding"),
        pl.col("reasons"),
        pl.col("missing_feeds"),
        pl.col("terms"),
    ]


def _with_estimate(frame: pl.DataFrame, estimate: Estimate, asked: pl.Series) -> pl.DataFrame:
    return frame.with_columns(estimate.pd.alias(PD), estimate.pd_hi.alias(PD_HI), asked).with_columns(
        parts_per_billion(pl.col(PD)).alias(PD), parts_per_billion(pl.col(PD_HI)).alias(PD_HI)
    )


def _gain(improvement: Improvement, asked: pl.Series, policy: Policy, limit_fen: pl.Series) -> pl.Series:
    better = sized(_with_estimate(improvement.features, improvement.estimate, asked), policy)["limit_fen"]
    return (better - limit_fen).clip(lower_bound=0)


def _missing_feeds(frame: pl.DataFrame) -> pl.Series:
    names = [feature.name for feature in FEEDS]
    return frame.select(
        missing_feeds=pl.concat_list(
            pl.when(pl.col(name) != "complete").then(pl.lit(name.removesuffix("_feed"))) for name in names
        ).list.drop_nulls()
    ).to_series()
