"""创新积分: innovation points of firms from the facts they reported, by a ruleset.

All arithmetic is in whole hundredths of a point, row by row or as a maximum over rows, so a batch and one firm give
the same bits. An indicator that was not reported, or does not apply, earns nothing; the best of the fiscal years looked
at counts, so withholding a year never helps.
"""

from datetime import date
from functools import lru_cache

import polars as pl

from data_contracts.sources import INNOVATION_INDICATORS
from scoring.feeds import known, latest
from scoring.ruleset import SHARE, Direct, Ruleset, Stage, Steps
from scoring.strict_yaml import record

HUNDREDTHS = 100
"""Hundredths in a point."""


def parse_ruleset(text: str) -> Ruleset:
    """Read a ruleset from YAML.

    Raises:
        PolicyError: with everything that is wrong: repeated and unknown keys, steps that fall, points that do not add
            up to the scale.
    """
    return record(text, Ruleset, "ruleset")


def points(indicators: pl.DataFrame, as_of: date, enterprises: pl.DataFrame, ruleset: Ruleset) -> pl.DataFrame:
    """Points of each enterprise as of a day.

    Args:
        indicators: rows of `innovation_indicators`; those known after `as_of` are not looked at, and of each indicator
            and year the row counts that `feeds.latest` says. Rows in doubt are the caller's to leave out
            (`conduct.undoubted`).
        as_of: the day; the ruleset's `years` completed fiscal years before it are looked at.
        enterprises: `uscc` (unique) and `established_on`, one row a firm; also the columns that the ruleset's
            `passing.enterprise` names.
        ruleset: the scale.

    Returns:
        One row an enterprise, in the order given:
        `uscc`; `innovation_points` f64, the score; `points_scale` i64; `points_share_bp` i64, score over scale, rounded
        down; `points_completeness_bp` i64, share of the indicators that were reported or said not to apply;
        `points_cohort_position_bp` i64, share of the frozen cohort at or below this score, null without a cohort;
        `points_contributions` list of {indicator, points}, in the ruleset's order; `passes` bool, whether the scale's
        own conditions are met: null where it has none or the firm's size is not known.
    """
    lines = [
        (f"{number}.{option}", steps)
        for number, indicator in enumerate(ruleset.indicators)
        for option, steps in enumerate(indicator.best_of)
    ]
    facts = _facts(indicators, as_of, ruleset)
    best = facts.group_by("uscc").agg(
        *(_earned(steps).max().alias(f"earned.{name}") for name, steps in lines),
        *(_delivered(steps).any().alias(f"delivered.{name}") for name, steps in lines),
        *(_met(direct).any().alias(f"direct.{number}") for number, direct in enumerate(_directs(ruleset))),
    )
    firms = enterprises.join(best, on="uscc", how="left", maintain_order="left")
    return (
        firms.with_columns(stage=stage_of(ruleset.stages, as_of))
        .with_columns(_hundredths(number, ruleset) for number in range(len(ruleset.indicators)))
        .with_columns(total=pl.sum_horizontal(f"points.{number}" for number in range(len(ruleset.indicators))))
        .select(
            "uscc",
            innovation_points=_in_points("total"),
            points_scale=pl.lit(ruleset.scale, pl.Int64),
            points_share_bp=pl.col("total") * SHARE // (ruleset.scale * HUNDREDTHS),
            points_completeness_bp=_completeness_bp(ruleset),
            points_cohort_position_bp=_cohort_position_bp(ruleset, as_of),
            points_contributions=_contributions(ruleset),
            passes=_passes(ruleset),
        )
    )


def stage_of(stages: tuple[Stage, ...], as_of: date) -> pl.Expr:
    """Stage by completed years since `established_on`; null where there are no stages."""
    born = pl.col("established_on")
    birthday_ahead = (born.dt.month() > as_of.month) | ((born.dt.month() == as_of.month) & (born.dt.day() > as_of.day))
    age = pl.lit(as_of.year, pl.Int32) - born.dt.year() - birthday_ahead.cast(pl.Int32)
    stage = pl.lit(stages[-1].id if stages else None, pl.String)
    for earlier in reversed(stages[:-1]):
        stage = pl.when(age < earlier.below_years).then(pl.lit(earlier.id)).otherwise(stage)
    return stage


def _directs(ruleset: Ruleset) -> tuple[Direct, ...]:
    return ruleset.passing.direct if ruleset.passing else ()


def _facts(indicators: pl.DataFrame, as_of: date, ruleset: Ruleset) -> pl.DataFrame:
    """The row that stands of each indicator and year that the ruleset looks at."""
    wanted = {steps.fact for indicator in ruleset.indicators for steps in indicator.best_of}
    wanted |= {direct.fact for direct in _directs(ruleset)}
    told = known(indicators, as_of).filter(
        pl.col("year").is_between(as_of.year - ruleset.years.value, as_of.year - 1),
        pl.col("indicator_id").is_in(sorted(wanted)),
    )
    return latest(told, INNOVATION_INDICATORS.key)


def _named(fact: str, unit: str) -> pl.Expr:
    return (pl.col("indicator_id") == fact) & (pl.col("unit") == unit)


def _earned(steps: Steps) -> pl.Expr:
    """Points of one row by the table; null for rows of other facts and for unreported ones."""
    return _earned_by(steps.fact, steps.unit, steps.better, steps.steps)


@lru_cache(maxsize=1024)  # hundreds of small expressions that a decision need not write anew
def _earned_by(fact: str, unit: str, better: str, steps: tuple[tuple[int, int], ...]) -> pl.Expr:
    value = pl.col("value")
    earned = pl.lit(0, pl.Int64)
    for bound, step in reversed(steps):
        reached = value >= bound if better == "higher" else value <= bound
        earned = pl.when(reached).then(pl.lit(step, pl.Int64)).otherwise(earned)
    is_reported = _named(fact, unit) & (pl.col("state") == "reported")
    return pl.when(is_reported & value.is_not_null()).then(earned)


def _delivered(steps: Steps) -> pl.Expr:
    return _named(steps.fact, steps.unit) & pl.col("state").is_in(["reported", "not_applicable"])


def _met(direct: Direct) -> pl.Expr:
    is_met = _named(direct.fact, direct.unit) & (pl.col("state") == "reported") & (pl.col("value") >= direct.at_least)
    return is_met.fill_null(value=False)


def _hundredths(number: int, ruleset: Ruleset) -> pl.Expr:
    """Hundredths of a point of one indicator: its best way, times its weight at the firm's stage."""
    indicator = ruleset.indicators[number]
    best = pl.max_horizontal(f"earned.{number}.{option}" for option in range(len(indicator.best_of)))
    factor = pl.lit(HUNDREDTHS, pl.Int64)
    if indicator.weights is not None:  # the steps are per cent of the weight, so per cent times weight is hundredths
        weights = indicator.weights
        factor = pl.col("stage").replace_strict(list(weights), list(weights.values()), return_dtype=pl.Int64)
    return (best.fill_null(0) * factor).alias(f"points.{number}")


def _in_points(hundredths: str) -> pl.Expr:
    # polars divides many rows by a number through its reciprocal, one row directly: only rounding makes the bits equal
    return (pl.col(hundredths) / HUNDREDTHS).round(2)


def _completeness_bp(ruleset: Ruleset) -> pl.Expr:
    delivered = [
        pl.any_horizontal(
            pl.col(f"delivered.{number}.{option}").fill_null(value=False) for option in range(len(indicator.best_of))
        ).cast(pl.Int64)
        for number, indicator in enumerate(ruleset.indicators)
    ]
    return pl.sum_horizontal(delivered) * SHARE // len(delivered)


def _cohort_position_bp(ruleset: Ruleset, as_of: date) -> pl.Expr:
    frozen = [cohort for cohort in ruleset.cohorts if cohort.frozen_on <= as_of]
    if not frozen:
        return pl.lit(None, pl.Int64)
    position = pl.lit(0, pl.Int64)
    for score, share in max(frozen, key=lambda cohort: cohort.frozen_on).cuts:
        position = pl.when(pl.col("total") >= score).then(pl.lit(share, pl.Int64)).otherwise(position)
    return position


def _contributions(ruleset: Ruleset) -> pl.Expr:
    return pl.concat_list(
        pl.struct(
            pl.lit(indicator.id, pl.String).alias("indicator"),
            _in_points(f"points.{number}").alias("points"),
        )
        for number, indicator in enumerate(ruleset.indicators)
    )


def _passes(ruleset: Ruleset) -> pl.Expr:
    passing = ruleset.passing
    if passing is None:
        return pl.lit(None, pl.Boolean)
    enough = pl.col("total") >= passing.total_at_least * HUNDREDTHS
    for group, least in passing.groups_at_least.items():
        members = [number for number, indicator in enumerate(ruleset.indicators) if indicator.group == group]
        enough &= pl.sum_horizontal(f"points.{number}" for number in members) >= least * HUNDREDTHS
    for number in range(len(passing.direct)):
        enough |= pl.col(f"direct.{number}").fill_null(value=False)
    for bound in passing.enterprise:  # an unknown size leaves the answer open unless it is no already
        enough &= pl.col(bound.column) <= bound.at_most
    return enough
