"""A policy together with the other dated data that it decides with, and the columns that follow from them."""

from dataclasses import dataclass
from datetime import date

import polars as pl

from data_contracts.sources import APPLICANT, Sources
from scoring.conduct import current, undoubted
from scoring.features import Features
from scoring.points import parse_ruleset, points
from scoring.policy import Policy, parse_policy, policy_version
from scoring.ruleset import Ruleset
from scoring.sme_size import SizeClasses, industry_of, parse_size_classes, size_class


@dataclass(frozen=True)
class Rulebook:
    """Everything a decision is bound by besides facts and model.

    Attributes:
        policy: numbers and rules.
        ruleset: the scale of innovation points; None where the policy uses none.
        size_classes: the thresholds of the MIIT size classes.
        version: `name@date#hash` over the texts of all three.
    """

    policy: Policy
    ruleset: Ruleset | None
    size_classes: SizeClasses
    version: str


def parse_rulebook(policy_text: str, ruleset_text: str | None, size_text: str) -> Rulebook:
    """Read the three texts; `ruleset_text` is None if and only if the policy names no ruleset.

    Raises:
        PolicyError: with everything that is wrong in the first text that is wrong.
    """
    policy = parse_policy(policy_text)
    return Rulebook(
        policy=policy,
        ruleset=None if ruleset_text is None else parse_ruleset(ruleset_text),
        size_classes=parse_size_classes(size_text),
        version=policy_version(policy, policy_text, ruleset_text or "", size_text),
    )


def under_policy(features: Features, sources: Sources, as_of: date, rulebook: Rulebook) -> pl.DataFrame:
    """The feature frame with the columns that a policy's own data give: size class and innovation points.

    Points are null where the policy names no ruleset; `points_share_bp` is then null too, which lifts nothing. A firm
    of whose indicators one is in quarantine has no points.
    """
    sized = (
        features.with_columns(industry=industry_of(rulebook.size_classes))
        .with_columns(size_class=size_class(rulebook.size_classes, pl.col("industry")))
        .drop("industry")
    )
    if rulebook.ruleset is None:
        return sized.with_columns(
            innovation_points=pl.lit(None, pl.Float64),
            points_share_bp=pl.lit(None, pl.Int64),
            points_own_word_bp=pl.lit(None, pl.Int64),
        )
    registry = current(sources, "enterprises", as_of).join(features.select("uscc"), on="uscc", how="semi")
    told = undoubted(sources, "innovation_indicators", as_of)
    scored = points(told, as_of, registry, rulebook.ruleset)
    own_word = _own_word_bp(told, as_of, registry, rulebook, rulebook.ruleset, scored["points_share_bp"])
    scored = scored.with_columns(points_own_word_bp=own_word)
    return sized.join(
        scored.select("uscc", "innovation_points", "points_share_bp", "points_own_word_bp"),
        on="uscc",
        how="left",
        maintain_order="left",
    )


def _own_word_bp(
    told: pl.DataFrame, as_of: date, registry: pl.DataFrame, rulebook: Rulebook, ruleset: Ruleset, whole: pl.Series
) -> pl.Series:
    """Of each share of points, what falls away without the applicant's word; 0 where a lower share reaches as far."""
    evidenced = told.filter(pl.col("supplier") != APPLICANT)
    if evidenced.height == told.height:
        return pl.zeros(whole.len(), pl.Int64, eager=True)
    shares = pl.DataFrame({"all": whole, "proven": points(evidenced, as_of, registry, ruleset)["points_share_bp"]})
    reached = [
        pl.sum_horizontal(
            pl.lit(0), *((pl.col(name) >= least).cast(pl.Int64) for least in rulebook.policy.points_steps)
        )
        for name in ("all", "proven")
    ]
    matters = pl.lit(value=True) if rulebook.policy.points_are_asked else reached[0] > reached[1]
    own = pl.when(matters).then(pl.col("all") - pl.col("proven")).otherwise(0)
    return shares.select(own=own).to_series()
