"""D3 of what stands: an old listing, arrears or overdue debt cannot be left out together with the marks of its time.

The marks of the look-back speak of it as well, as long as it stands; so either they disagree, or they are gone too.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

import polars as pl
import pytest

from data_contracts.marks import Period, marks, stood
from data_contracts.sources import SOURCES
from scoring.calendar import months_before
from tests import make
from tests.promises.conftest import Before
from tests.promises.test_d3_withholding import rose
from tests.promises.worlds import Frames, World, decided

BEGAN = date(2021, 3, 31)
"""Long before the look-back of every feed; the marks of that year end on its last day."""
YEAR = Period(date(2021, 1, 1), date(2021, 12, 31), date(2022, 1, 10))
STANDING: Mapping[str, dict[str, Any]] = {
    "public_records": make.public_record(kind="judgment_defaulter", listed_on=BEGAN),
    "tax_filings": make.tax_filing(
        period_from=date(2021, 1, 1),
        period_to=BEGAN,
        known_on=date(2021, 4, 15),
        tax_kind="other",
        paid_on=None,
        arrears_fen=3_600_000,
    ),
    "debts": make.debt(as_of=BEGAN, opened_on=date(2020, 1, 1), overdue_days=60, debt_id="old"),
}


def with_year(world: World, name: str, chosen: pl.Series) -> Frames:
    """The facts of some firms with marks of a source that begin with the look-back, and beside them one of `YEAR`."""
    frames = {source: rows.filter(pl.col("uscc").is_in(chosen.implode())) for source, rows in world.frames.items()}
    start = pl.lit(months_before(world.as_of, 37))
    feeds = frames["feeds"]
    mine = (pl.col("source") == name) & (pl.col("period_to") >= start)
    recent = feeds.filter(mine).with_columns(period_from=pl.max_horizontal("period_from", start))
    old = marks(SOURCES[name], frames[name], chosen, YEAR, "authority")
    return {**frames, "feeds": pl.concat([feeds.filter(pl.col("source") != name), recent, old])}


def counted_anew(frames: Frames, name: str) -> Frames:
    """The facts with the marks of a source counting what they speak of."""
    source = SOURCES[name]
    feeds = frames["feeds"].with_row_index("mark")
    mine = feeds.filter(pl.col("source") == name)
    spoken = mine.select("mark", "uscc", first="period_from", last="period_to", marked_on="known_on")
    amount = pl.col(source.total_of).sum() if source.total_of else pl.lit(None, pl.Int64)
    found = stood(source, frames[name], spoken).group_by("mark").agg(rows=pl.col("versions").sum(), sum=amount)
    anew = mine.join(found, on="mark", how="left", maintain_order="left").with_columns(
        row_count=pl.col("rows").fill_null(0), total_fen=pl.col("sum").fill_null(0) if source.total_of else None
    )
    others = frames["feeds"].filter(pl.col("source") != name)
    return {**frames, "feeds": pl.concat([others, anew.select(others.columns)])}


@pytest.mark.parametrize("name", STANDING)
def test_what_stands_cannot_be_left_out_with_the_marks_of_its_time(name: str, before: Before) -> None:
    world, engine, base = before("plain_world")
    complete = pl.col(f"{name}_feed") == "complete"
    chosen = base.filter(complete, pl.col("limit_fen") > 0)["uscc"]
    clean = with_year(world, name, chosen)
    rows = make.frame(name, [STANDING[name] | {"uscc": uscc} for uscc in chosen])
    honest = counted_anew({**clean, name: pl.concat([clean[name], rows])}, name)

    def answers(frames: Frames) -> pl.DataFrame:
        return decided(engine, World(frames, world.as_of))

    without, told = answers(counted_anew(clean, name)), answers(honest)
    assert without.filter(complete)["limit_fen"].min() > 0  # pyright: ignore[reportOperatorIssue]
    assert told.filter(complete).height == chosen.len() >= 10
    assert told["limit_fen"].max() == 0
    of_source = pl.col("source") == name
    lies = {
        "the mark in which it began": pl.col("period_from") <= BEGAN,
        "every mark of a period in which it stood": pl.col("period_to") >= BEGAN,
        "no mark": pl.lit(value=False),
    }
    for words, gone in lies.items():
        left = {**honest, name: clean[name], "feeds": honest["feeds"].filter(~(of_source & gone))}
        found = rose(told, answers(left), "limit_fen", unless_told=True)
        assert found.is_empty(), f"{name}, {words}: {found.head(5).to_dicts()}"
