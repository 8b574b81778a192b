"""Had all the same chance to win a round (F2)? Win shares of groups of institutions, and an exact test of them. Pure.

Asked is one thing: whether each institution that tried for a round was as likely to win it as any other that tried.
If so, a group of k among the n that tried wins a round with the chance k/n, whatever happened in other rounds, and its
wins in a month are a sum of independent draws with known chances. The distribution of that sum is computed exactly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, sqrt
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

LEVEL = 0.05
"""Of fair months at most so many have any group that is said to differ."""

LEAST_INSTITUTIONS = 5
"""A group of fewer is not told: its figures would be those of single banks."""

LEAST_ROUNDS = 30
"""A group that met others in fewer rounds is not judged: only a gross difference could be found in them."""

BY: Mapping[str, str] = {"size": "size_class", "connection": "means"}
"""What institutions are grouped by, and the column that says it."""

Verdict = Literal["too few to tell", "no difference found", "wins more than its share", "wins less than its share"]
_ROUND = ("fr_id", "round")


@dataclass(frozen=True)
class Group:
    """A group's wins in the rounds for which others tried too; all figures are null where there are too few to tell.

    Attributes:
        by: what it is a group by: `size` or `connection`.
        institutions: how many of it tried.
        expected_hundredths: wins if all that tried were as likely to win.
        z_hundredths: wins beyond the expected, in standard deviations.
        p_millionths: of a fair month's chance to be at least as far off, two-sided, exact; rounded up, never 0.
        holm_p_millionths: the same, made good for the number of groups that are tested (Holm).
    """

    by: str
    group: str
    verdict: Verdict
    institutions: int | None = None
    rounds: int | None = None
    wins: int | None = None
    win_share_bp: int | None = None
    expected_hundredths: int | None = None
    z_hundredths: int | None = None
    p_millionths: int | None = None
    holm_p_millionths: int | None = None


@dataclass(frozen=True)
class Fairness:
    """A month: rounds that more than one institution tried for, and the groups."""

    contested_rounds: int
    groups: tuple[Group, ...]

    def rows(self) -> list[dict[str, Any]]:
        """The groups as plain values."""
        return [asdict(group) for group in self.groups]


@dataclass(frozen=True)
class _Tried:
    """A group: its institutions, its chance in each round for which others tried too, and how many of these it won."""

    by: str
    group: str
    institutions: frozenset[str]
    chances: NDArray[np.float64]
    wins: int


def fairness(attempts: pl.DataFrame) -> Fairness:
    """Test every group.

    Args:
        attempts: `fr_id`, `round`, `institution_id`, `size_class`, `means`, `won`: a row an institution and round
            that it tried for; each round has one winner.
    """
    contested = attempts.with_columns(tried=pl.len().over(*_ROUND)).filter(pl.col("tried") > 1)
    rounds = contested.select(pl.struct(*_ROUND).n_unique()).item() if contested.height else 0
    told: list[_Tried] = []
    untold: list[_Tried] = []
    for by, column in BY.items():
        shown, hidden = _parted(_groups(contested, by, column))
        told += shown
        untold += hidden
    found = [two_sided(wins_of(one.chances), one.wins) for one in told]
    groups = [_judged(one, p, adjusted) for one, p, adjusted in zip(told, found, holm(found), strict=True)] + [
        Group(one.by, one.group, "too few to tell") for one in untold
    ]
    return Fairness(rounds, tuple(sorted(groups, key=lambda one: (one.by, one.group))))


def wins_of(chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """How likely 0, 1, ... wins are in rounds that are won with these chances, each by itself (Poisson binomial)."""
    likely = np.zeros(len(chances) + 1)
    likely[0] = 1.0
    for number, chance in enumerate(chances, start=1):
        likely[1 : number + 1] = likely[1 : number + 1] * (1 - chance) + likely[:number] * chance
        likely[0] *= 1 - chance
    return likely


def two_sided(likely: NDArray[np.float64], wins: int) -> float:
    """Twice the smaller tail from `wins` on, at most 1: at most `a` in a share `a` of fair months, or fewer."""
    return min(1.0, 2.0 * min(float(likely[: wins + 1].sum()), float(likely[wins:].sum())))


def holm(found: Sequence[float]) -> list[float]:
    """Holm's step-down: each p as if it were the only one, so that all together err as often as one."""
    adjusted = [1.0] * len(found)
    standing = 0.0
    for place, one in enumerate(sorted(range(len(found)), key=found.__getitem__)):
        standing = max(standing, min(1.0, (len(found) - place) * found[one]))
        adjusted[one] = standing
    return adjusted


def _groups(contested: pl.DataFrame, by: str, column: str) -> list[_Tried]:
    chances = (
        contested.group_by(column, *_ROUND)
        .agg(chance=pl.len() / pl.col("tried").first(), won=pl.col("won").any())
        .filter(pl.col("chance") < 1)
        .sort(column, "chance")
    )
    members = dict(contested.group_by(column).agg(pl.col("institution_id").unique()).iter_rows())
    return [
        _Tried(
            by,
            name,
            frozenset(members[name]),
            (own := chances.filter(pl.col(column) == name))["chance"].to_numpy(),
            int(own["won"].sum()),
        )
        for name in sorted(members)
    ]


def _parted(groups: Sequence[_Tried]) -> tuple[list[_Tried], list[_Tried]]:
    """The groups that are told, and those that are not; what is not told can't be had by subtraction either."""
    shown = sorted(groups, key=lambda one: (len(one.institutions), one.group))
    hidden: list[_Tried] = []
    while shown and (
        len(shown[0].institutions) < LEAST_INSTITUTIONS
        or (hidden and len(frozenset().union(*(one.institutions for one in hidden))) < LEAST_INSTITUTIONS)
    ):
        hidden.append(shown.pop(0))
    return [one for one in shown if len(one.chances) >= LEAST_ROUNDS], [
        *hidden,
        *(one for one in shown if len(one.chances) < LEAST_ROUNDS),
    ]


def _judged(one: _Tried, p: float, adjusted: float) -> Group:
    rounds, expected = len(one.chances), float(one.chances.sum())
    spread = sqrt(float((one.chances * (1 - one.chances)).sum()))
    verdict: Verdict = "no difference found"
    if adjusted <= LEVEL:
        verdict = "wins more than its share" if one.wins > expected else "wins less than its share"
    return Group(
        one.by,
        one.group,
        verdict,
        institutions=len(one.institutions),
        rounds=rounds,
        wins=one.wins,
        win_share_bp=round(10_000 * one.wins / rounds),
        expected_hundredths=round(100 * expected),
        z_hundredths=round(100 * (one.wins - expected) / spread),
        p_millionths=_millionths(p),
        holm_p_millionths=_millionths(adjusted),
    )


def _millionths(p: float) -> int:
    return min(1_000_000, max(1, ceil(1e6 * p)))
