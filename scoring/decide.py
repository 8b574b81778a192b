"""The one place where a limit is born: batch, single request and replay all come through `decide`."""

from collections.abc import Mapping, Sequence
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
    clean_frame = taken_at_their_word(frame)
    clean_rules = verdicts(clean_frame, policy)
    asked_for = [group for group in GROUPS if group.name in risk.improvements]
    better = [risk.improvements[group.name] for group in asked_for]
    readings = [(frame, risk.now), (clean_frame, risk.if_clean), *((one.features, one.estimate) for one in better)]
    terms, clean, *improved = _sized_together(readings, amounts, policy)
    gains = {
        group.code: (after["limit_fen"] - terms["limit_fen"]).clip(lower_bound=0)
        for group, after in zip(asked_for, improved, strict=True)
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


def _sized_together(
    readings: Sequence[tuple[pl.DataFrame, Estimate]], asked: pl.Series, policy: Policy
) -> list[pl.DataFrame]:
    """The terms of each reading of the same firms, sized in one pass."""
    estimates = pl.DataFrame(
        {
            PD: pl.concat([estimate.pd for _, estimate in readings]),
            PD_HI: pl.concat([estimate.pd_hi for _, estimate in readings]),
            ASKED: pl.concat([asked] * len(readings)),
        }
    ).with_columns(parts_per_billion(pl.col(PD, PD_HI)))
    frames = pl.concat([frame.drop(PD, PD_HI, ASKED, strict=False) for frame, _ in readings], rechunk=True)
    terms = sized(frames.hstack(estimates), policy)
    return [terms.slice(number * asked.len(), asked.len()) for number in range(len(readings))]


def _missing_feeds(frame: pl.DataFrame) -> pl.Series:
    names = [feature.name for feature in FEEDS]
    return frame.select(
        missing_feeds=pl.concat_list(
            pl.when(pl.col(name) != "complete").then(pl.lit(name.removesuffix("_feed"))) for name in names
        ).list.drop_nulls()
    ).to_series()
