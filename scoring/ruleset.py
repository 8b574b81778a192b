"""创新积分规则: the types of a ruleset, the versioned data that turns reported indicators into innovation points.

A ruleset is a dated YAML file, never edited; a zone brings its own. Every number of it is an integer in the unit of the
`innovation_indicators` contract (fen, bp or count), so a step is reached exactly or not at all.
"""

from datetime import date
from typing import Literal

from pydantic import Field, model_validator

from scoring.strict_yaml import Record

Unit = Literal["fen", "bp", "count"]
SHARE = 10_000
"""The whole in basis points."""


class Steps(Record):
    """One way to earn an indicator's points, from one reported fact.

    Attributes:
        fact: `indicator_id` of the source.
        unit: the unit the fact must be reported in; a fact in another unit does not count.
        better: whether more of it or less of it earns more.
        steps: (bound, points) with the best first; a bound includes its number. Beyond the last step: no points.
            Where the indicator has weights, the points are per cent of the weight.
    """

    fact: str = Field(pattern=r"^[a-z][a-z0-9_]{1,59}$")
    unit: Unit
    better: Literal["higher", "lower"] = "higher"
    steps: tuple[tuple[int, int], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _steps_never_fall(self) -> "Steps":
        problems = []
        sign = 1 if self.better == "higher" else -1
        for (bound, points), (next_bound, next_points) in zip(self.steps, self.steps[1:], strict=False):
            if sign * next_bound >= sign * bound:
                problems.append(f"{self.fact}: the step at {next_bound} must stand on the worse side of {bound}")
            if next_points > points:
                problems.append(f"{self.fact}: a worse value would earn more, {next_points} at {next_bound}")
        if any(points < 0 for _, points in self.steps):
            problems.append(f"{self.fact}: points are never negative")
        if problems:
            raise ValueError("\n".join(problems))
        return self


class Indicator(Record):
    """One line of the scale: the best of its ways counts.

    Attributes:
        weights: points of a full indicator by stage; null: the steps themselves are points.
        source: where the numbers stand, or "jifen default".
    """

    id: str = Field(pattern=r"^[a-z][a-z0-9_]{1,59}$")
    zh: str
    en: str
    group: str
    source: str
    weights: dict[str, int] | None = None
    best_of: tuple[Steps, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _weights_fit(self) -> "Indicator":
        problems = [f"{self.id}: weights are never negative" for w in (self.weights or {}).values() if w < 0]
        best = max(steps.steps[0][1] for steps in self.best_of)
        if self.weights is not None and best != 100:
            problems.append(f"{self.id}: with weights the best step is 100 per cent, not {best}")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def most(self, stage: str | None) -> int:
        """Points of the best step at a stage."""
        if self.weights is not None and stage is not None:
            return self.weights[stage]
        return max(steps.steps[0][1] for steps in self.best_of)


class Stage(Record):
    """A stage of a firm's life, by completed years since establishment; the last stage has no end."""

    id: str
    zh: str
    below_years: int | None = Field(default=None, gt=0)


class Years(Record):
    """How many completed fiscal years before the day are looked at; an indicator's best year counts."""

    value: int = Field(ge=1, le=10)
    source: str


class Direct(Record):
    """A fact that passes by itself, whatever the total."""

    fact: str = Field(pattern=r"^[a-z][a-z0-9_]{1,59}$")
    unit: Unit
    at_least: int
    zh: str


class EnterpriseBound(Record):
    """An upper bound on a column of `enterprises` that a firm must keep to pass; the bound includes its number."""

    column: Literal["employees", "revenue_fen", "total_assets_fen"]
    at_most: int = Field(ge=0)


class Passing(Record):
    """What an official scale asks for: the total and the group minima, or one direct fact; and the firm's size."""

    total_at_least: int = Field(ge=0)
    groups_at_least: dict[str, int] = Field(default_factory=dict)
    direct: tuple[Direct, ...] = ()
    enterprise: tuple[EnterpriseBound, ...] = ()
    source: str


class Cohort(Record):
    """A frozen table that places a score among others; never recomputed from the batch at hand.

    Attributes:
        frozen_on: it counts for days from this one on.
        cuts: (score in hundredths of a point, basis points of the cohort at or below it), both rising.
    """

    name: str
    frozen_on: date
    firms: int = Field(gt=0)
    source: str
    cuts: tuple[tuple[int, int], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _cuts_rise(self) -> "Cohort":
        pairs = list(zip(self.cuts, self.cuts[1:], strict=False))
        if any(after[0] <= before[0] or after[1] < before[1] for before, after in pairs):
            raise ValueError(f"{self.name}: cut points must rise")
        if any(not 0 <= position <= SHARE for _, position in self.cuts):
            raise ValueError(f"{self.name}: positions are 0 to {SHARE} bp")
        return self


class Ruleset(Record):
    """A scale of innovation points.

    Attributes:
        version: its name and day; the file is called the same.
        scale: points of a firm that is best in everything, the same at every stage.
        stages: empty: the scale does not tell stages apart.
    """

    version: str = Field(pattern=r"^[a-z][a-z0-9-]*\.\d{4}-\d{2}-\d{2}$")
    zh: str
    en: str
    source: str
    scale: int = Field(gt=0, le=1_000_000)
    years: Years
    stages: tuple[Stage, ...] = ()
    indicators: tuple[Indicator, ...] = Field(min_length=1)
    passing: Passing | None = None
    cohorts: tuple[Cohort, ...] = ()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "Ruleset":
        problems = [*self._stage_problems(), *self._name_problems()]
        if not problems:
            problems = self._scale_problems()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _stage_problems(self) -> list[str]:
        ends = [stage.below_years for stage in self.stages]
        closed = [end for end in ends[:-1] if end is not None]
        fits = not ends or (ends[-1] is None and len(closed) == len(ends) - 1 and closed == sorted(set(closed)))
        return [] if fits else ["stages: below_years must rise, and only the last stage has no end"]

    def _name_problems(self) -> list[str]:
        ids = [indicator.id for indicator in self.indicators]
        stages = [stage.id for stage in self.stages]
        groups = {indicator.group for indicator in self.indicators}
        problems = [f"the id {name} stands twice" for name in sorted({n for n in ids if ids.count(n) > 1})]
        problems += [f"the stage {name} stands twice" for name in sorted({n for n in stages if stages.count(n) > 1})]
        for indicator in self.indicators:
            if indicator.weights is not None and sorted(indicator.weights) != sorted(stages):
                problems.append(f"{indicator.id}: weights must name each stage once: {', '.join(stages) or 'none'}")
        asked = set(self.passing.groups_at_least) if self.passing else set()
        problems += [f"passing: there is no group {name}" for name in sorted(asked - groups)]
        units: dict[str, set[str]] = {}
        for steps in (steps for indicator in self.indicators for steps in indicator.best_of):
            units.setdefault(steps.fact, set()).add(steps.unit)
        for direct in self.passing.direct if self.passing else ():
            units.setdefault(direct.fact, set()).add(direct.unit)
        problems += [f"{fact}: asked for in several units" for fact, found in sorted(units.items()) if len(found) > 1]
        return problems

    def _scale_problems(self) -> list[str]:
        problems = []
        for stage in [stage.id for stage in self.stages] or [None]:
            total = sum(indicator.most(stage) for indicator in self.indicators)
            if total != self.scale:
                problems.append(f"the best points add up to {total}, not {self.scale}{f' ({stage})' if stage else ''}")
        return problems
