"""A policy together with the other dated data that it decides with, and the columns that follow from them."""

from dataclasses import dataclass
from datetime import date

import polars as pl

from data_contracts.sources import Sources
from scoring.conduct import current
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

    Points are null where the policy names no ruleset; `points_share_bp` is then null too, which lifts nothing.
    """
    sized = (
        features.with_columns(industry=industry_of(rulebook.size_classes))
        .with_columns(size_class=size_class(rulebook.size_classes, pl.col("industry")))
        .drop("industry")
    )
    if rulebook.ruleset is None:
        return sized.with_columns(innovation_points=pl.lit(None, pl.Float64), points_share_bp=pl.lit(None, pl.Int64))
    registry = current(sources, "enterprises", as_of).join(features.select("uscc"), on="uscc", how="semi")
    scored = points(sources.innovation_indicators, as_of, registry, rulebook.ruleset)
    return sized.join(
        scored.select("uscc", "innovation_points", "points_share_bp"), on="uscc", how="left", maintain_order="left"
    )
