"""Worlds to edit, decide on and compare: facts of many firms as of a day, and which way each answer moved."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import polars as pl

from data_contracts.checking import sources_of
from data_contracts.sources import LAST_DAY, SOURCES, Source, Sources
from models.batch import Engine
from scoring.catalogue import CATALOGUE, MASKED, SEEN
from scoring.decide import Risk, decide
from scoring.features import features, taken_at_their_word
from scoring.price import break_even_bp
from scoring.rulebook import under_policy
from scoring.rules import expression
from scoring.score import parts_per_billion
from tests import make

Frames = dict[str, pl.DataFrame]

WORST = float("-inf")
ROUND_TRADE = "ROUND_TRADE"
"""The one rule that more trade may break: it sends the firm to a person (exempt by name)."""
ANSWERS = ("pd_12m", "pd_hi", "r_min", "limit_fen", "conditional_limit_fen", "points_share_bp")


@dataclass(frozen=True)
class World:
    """Facts by source, without outcomes, and the day they are looked at from.

    Attributes:
        frames: by source.
        as_of: the day.
        broken: rows may break their contracts; else a quarantined row fails the test.
    """

    frames: Frames
    as_of: date
    broken: bool = False

    def sources(self) -> Sources:
        """The facts, checked."""
        return sources_of(self.frames)[0] if self.broken else make.checked_sources(self.frames)


def remarked(before: Mapping[str, pl.DataFrame], after: Mapping[str, pl.DataFrame]) -> Frames:
    """`after` with the marks of `before` moved by what the facts moved.

    A mark that agreed agrees again; one that was wrong stays wrong by as much, so that no edit mends a broken feed.
    """
    marks = before["feeds"].with_row_index("mark")
    moved = [_moved(SOURCES[name], before[name], after[name], marks) for name in _changed(before, after)]
    if not moved:
        return dict(after)
    total = pl.concat(moved).group_by("mark").agg(pl.col("rows", "sum").sum())
    shifted = marks.join(total, on="mark", how="left", maintain_order="left").with_columns(
        row_count=(pl.col("row_count") + pl.col("rows").fill_null(0)).clip(lower_bound=0),
        total_fen=pl.col("total_fen") + pl.col("sum").fill_null(0),
    )
    return {**after, "feeds": shifted.select(before["feeds"].columns)}


def _changed(before: Mapping[str, pl.DataFrame], after: Mapping[str, pl.DataFrame]) -> list[str]:
    return [name for name in before if name not in {"feeds", "enterprises"} and before[name] is not after[name]]


def _moved(source: Source, before: pl.DataFrame, after: pl.DataFrame, marks: pl.DataFrame) -> pl.DataFrame:
    """`mark`, `rows` and `sum`: by how much what each mark counts has grown."""
    everything = list(source.columns)
    gone = before.join(after, on=everything, how="anti", nulls_equal=True)
    come = after.join(before, on=everything, how="anti", nulls_equal=True)
    keys = pl.concat([gone, come]).select(source.subject).unique()
    counted = [
        _counted(source, rows.join(keys, on=source.subject, how="semi"), marks).with_columns(
            pl.col("rows") * sign, pl.col("sum") * sign
        )
        for rows, sign in ((before, -1), (after, 1))
    ]
    return pl.concat(counted)


def _counted(source: Source, rows: pl.DataFrame, marks: pl.DataFrame) -> pl.DataFrame:
    mine = marks.filter(pl.col("source") == source.name).select(
        "mark",
        "uscc",
        first="period_from",
        last="period_to",
        marked_on="known_on",
        marked_direction="direction",
    )
    pairs = rows.join(mine, on="uscc").filter(pl.col("known_on") <= pl.col("marked_on"))
    if "direction" in source.key:
        pairs = pairs.filter(pl.col("direction") == pl.col("marked_direction"))
    versions = pl.len().cast(pl.Int64).over("mark", *source.key)
    latest = pairs.with_columns(versions=versions).sort("known_on").unique(["mark", *source.key], keep="last")
    if source.happened_on is not None:
        latest = latest.filter(pl.col(source.happened_on) <= pl.col("last"))
        latest = latest.filter(_last_day(source, latest) >= pl.col("first"))
    amount = pl.col(source.total_of) if source.total_of else pl.lit(0, pl.Int64)
    return latest.group_by("mark").agg(rows=pl.col("versions").sum(), sum=amount.sum())


def _last_day(source: Source, latest: pl.DataFrame) -> pl.Series:
    """The last day on which each row stood, said anew for each source that has such rows."""
    if source.name == "public_records":
        day = pl.max_horizontal("listed_on", pl.col("removed_on").fill_null(LAST_DAY))
    elif source.name == "tax_filings":
        day = pl.when(pl.col("arrears_fen") > 0).then(LAST_DAY).otherwise(pl.max_horizontal("period_to", "known_on"))
    elif source.name == "social_insurance":
        day = pl.max_horizontal("month", "known_on")
    elif source.name == "debts":
        reports = latest.select("mark", "uscc", "lender_id", "debt_id", "as_of")
        later = reports.join(reports, on=["mark", "uscc", "lender_id", "debt_id"], suffix="_later")
        following = later.filter(pl.col("as_of_later") > pl.col("as_of")).group_by(reports.columns)
        ends = latest.join(
            following.agg(ended=pl.col("as_of_later").min().dt.offset_by("-1d")),
            on=reports.columns,
            how="left",
            maintain_order="left",
        )
        day = pl.when(pl.col("closed_on").is_null()).then(pl.col("ended").fill_null(LAST_DAY)).otherwise("as_of")
        return ends.select(day.alias("day")).to_series()
    else:
        day = pl.col(source.happened_on or "known_on")
    return latest.select(day.alias("day")).to_series()


def decided(engine: Engine, world: World, asked: pl.DataFrame | None = None) -> pl.DataFrame:
    """Features and answers of every firm of a world, ordered by credit code; what `Engine.decided` does, less reasons.

    Beside the answers stand `r_min`, the break-even rate of the cash branch, and `round_trade`, whether that rule is
    kept.
    """
    sources, policy = world.sources(), engine.rulebook.policy
    frame = under_policy(features(sources, world.as_of), sources, world.as_of, engine.rulebook)
    estimate = engine.estimator.estimate
    risk = Risk(estimate(frame), estimate(taken_at_their_word(frame)), {})
    amounts = None if asked is None else frame.join(asked, on="uscc", how="left", maintain_order="left")["asked_fen"]
    answers = decide(frame, risk, policy, asked=amounts)
    rules = {rule.code: expression(rule.passes) for rule in policy.rules}
    return frame.hstack(answers.select(pl.exclude("uscc", "innovation_points"))).with_columns(
        r_min=break_even_bp(parts_per_billion(pl.col("pd_12m")), policy.price),
        round_trade=rules.get(ROUND_TRADE, pl.lit(value=True)),
    )


def goodness(table: pl.DataFrame) -> pl.DataFrame:
    """Every feature with a safer side and every answer, turned so that more is better; not known is worst."""
    signs = {name: -feature.direction for name, feature in CATALOGUE.items() if feature.better is not None}
    signs |= {feature.name + SEEN: -feature.direction for feature in MASKED if feature.better is not None}
    signs |= {"pd_12m": -1, "pd_hi": -1, "r_min": -1, "limit_fen": 1, "conditional_limit_fen": 1}
    return table.select(
        (pl.col(name).cast(pl.Float64) * sign).fill_null(WORST).alias(name)
        for name, sign in signs.items()
        if name in table.columns
    )


def fell(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """What got worse: `uscc`, `what`, `before` and `after`, one row a value. Empty where the promise is kept."""
    assert before["uscc"].equals(after["uscc"])
    left, right = goodness(before), goodness(after)
    exempt = before["round_trade"].ne_missing(after["round_trade"])
    found: list[tuple[str, str, object, object]] = []
    for name in left.columns:
        down = right[name] < left[name]
        if name == "limit_fen":
            down = down & ~exempt
        found += [(before["uscc"][row], name, before[name][row], after[name][row]) for row in down.arg_true().to_list()]
    return pl.DataFrame(
        found, schema={"uscc": pl.String, "what": pl.String, "before": pl.Object, "after": pl.Object}, orient="row"
    )


def told(faults: pl.DataFrame, words: str) -> str:
    """The first faults as a sentence for an assertion."""
    shown = [f"{uscc}: {what} {left} -> {right}" for uscc, what, left, right in faults.head(8).iter_rows()]
    return f"{words}: {faults.height} values moved the wrong way\n" + "\n".join(shown)


def kept(world: World, usccs: pl.Series) -> World:
    """The same world with these firms only."""
    return World(
        {name: rows.filter(pl.col("uscc").is_in(usccs.implode())) for name, rows in world.frames.items()}, world.as_of
    )
