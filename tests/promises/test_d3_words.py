"""D3 of words: neither what an applicant says against others, nor a row broken or a correction held back, ever pays."""

from datetime import date, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from data_contracts.sources import SOURCES
from models.batch import Engine
from tests.promises.conftest import Before
from tests.promises.edits import Frames
from tests.promises.test_d3_withholding import LIMITS, rose
from tests.promises.word_edits import FEARED, WISHED, beside, of_authorities, said, unreadable
from tests.promises.worlds import World, decided, remarked

UNMARKED = ("qualifications", "financial_statements", "innovation_indicators")
"""Of these no mark tells, so a correction held back is not missed (docs/decisions/promises.md)."""


def last_mark(world: World) -> date:
    found = world.frames["feeds"]["known_on"].max()
    assert isinstance(found, date)
    return found


@pytest.mark.parametrize("name", WISHED)
def test_an_applicant_changes_nothing_by_contradicting_or_correcting_others(name: str, before: Before) -> None:
    world, engine, _ = before("plain_world")
    told = of_authorities(dict(world.frames), name)
    base = decided(engine, World(told, world.as_of))
    for known_on in (None, world.as_of - timedelta(days=1)):
        own = said(told, name, WISHED[name], supplier="applicant", known_on=known_on)
        assert own.height > 0
        found = decided(engine, World(beside(told, name, own), world.as_of, broken=True))
        assert_frame_equal(found, base, check_exact=True)


@pytest.mark.parametrize(
    ("name", "condition"), [("qualifications", "verify_certificate"), ("innovation_indicators", "verify_indicators")]
)
def test_what_only_the_applicant_says_raises_a_limit_with_a_condition_or_not_at_all(
    name: str, condition: str, before: Before
) -> None:
    world, engine, _ = before("plain_world")
    told = of_authorities(dict(world.frames), name)
    own = said(told, name, WISHED[name], supplier="applicant", known_on=world.as_of - timedelta(days=1))
    without = decided(engine, World({**told, name: told[name].clear()}, world.as_of))
    found = decided(engine, World({**told, name: own}, world.as_of))
    assert rose(without, found, "limit_fen").height > 0
    assert rose(without, found, "limit_fen", unless_told=True).is_empty()
    assert rose(without, found, "limit_fen")["told"].list.contains(condition).all()


def corrected(world: World, name: str) -> tuple[Frames, pl.DataFrame]:
    """The facts in which every row was corrected for the worse before the last mark was made, and those corrections."""
    told = of_authorities(dict(world.frames), name)
    worse = said(told, name, FEARED[name], supplier="authority", known_on=last_mark(world) - timedelta(days=1))
    assert worse.height > 0
    return remarked(told, beside(told, name, worse)), worse


def uncorrected(frames: Frames, name: str, worse: pl.DataFrame) -> Frames:
    return {**frames, name: frames[name].join(worse, on=[*SOURCES[name].key, "known_on"], how="anti")}


@pytest.mark.parametrize("name", FEARED)
def test_a_correction_that_cannot_be_read_never_raises_a_limit(name: str, before: Before) -> None:
    world, engine, _ = before("plain_world")
    honest, worse = corrected(world, name)
    base = decided(engine, World(honest, world.as_of))
    broken = beside(uncorrected(honest, name, worse), name, unreadable(worse))
    found = decided(engine, World(broken, world.as_of, broken=True))
    favourable = name in {"qualifications", "innovation_indicators"}
    for limit in LIMITS if favourable else ("limit_fen",):
        assert (up := rose(base, found, limit)).is_empty(), f"{name}, {limit}: {up.head(5).to_dicts()}"


@pytest.mark.parametrize("name", [name for name in FEARED if name not in UNMARKED])
def test_a_correction_held_back_from_a_feed_never_raises_a_limit_without_a_new_condition(
    name: str, before: Before
) -> None:
    world, engine, _ = before("plain_world")
    honest, worse = corrected(world, name)
    found = decided(engine, World(uncorrected(honest, name, worse), world.as_of))
    base = decided(engine, World(honest, world.as_of))
    assert (up := rose(base, found, "limit_fen", unless_told=True)).is_empty(), f"{name}: {up.head(5).to_dicts()}"
    assert (found[f"{_FEED[name]}_feed"] == "incomplete").sum() >= 10


_FEED = {
    name: "invoices_out" if name == "invoices" else name
    for name in ("invoices", "tax_filings", "taxpayer_ratings", "social_insurance", "debts", "public_records")
}


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "loan_outcomes"])
def test_the_last_row_of_each_firm_made_unreadable_never_raises_a_limit(name: str, before: Before) -> None:
    world, engine, base = before("plain_world")
    check_unreadable(world, engine, base, name)


def check_unreadable(world: World, engine: Engine, base: pl.DataFrame, name: str) -> None:
    """Of each firm the row of a source known last; who has no registry row left is not decided on."""
    numbered = world.frames[name].with_row_index("row")
    last = numbered.sort("known_on", "row").unique("uscc", keep="last")["row"]
    hit = pl.col("row").is_in(last.implode())
    supplier = pl.when(hit).then(pl.lit("somebody")).otherwise("supplier")
    frames = {**world.frames, name: numbered.with_columns(supplier=supplier).drop("row")}
    found = decided(engine, World(frames, world.as_of, broken=True))
    of_same = base.join(found.select("uscc"), on="uscc", how="semi", maintain_order="left")
    assert (up := rose(of_same, found, "limit_fen")).is_empty(), f"{name}: {up.head(5).to_dicts()}"
