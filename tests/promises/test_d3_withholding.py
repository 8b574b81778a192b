"""D3: withholding never pays.

What is favourable: neither limit rises without it. What may be unfavourable: the limit rises only together with a
condition that tells the bank what to check. Need-type inputs are exempt by name.
"""

import numpy as np
import polars as pl
import pytest

from data_contracts.sources import SOURCES
from models.batch import Engine
from scoring.catalogue import MODEL_INPUTS
from tests.promises.conduct_edits import PAID_CLEAN
from tests.promises.conftest import Before, soak_worlds
from tests.promises.edits import IN, OUT, PURCHASE, SALE, Frames, dropped, one_each
from tests.promises.worlds import World, decided, fell, remarked, told

ANY = pl.lit(value=True)
FAVOURABLE_RECORDS = {
    "a sale": ("invoices", SALE),
    "a purchase": ("invoices", PURCHASE),
    "a clean filing": ("tax_filings", PAID_CLEAN),
    "a rating above D": ("taxpayer_ratings", pl.col("grade") != "D"),
    "a month of insurance": ("social_insurance", pl.col("arrears_fen") == 0),
    "a certificate": ("qualifications", ANY),
    "an indicator": ("innovation_indicators", ANY),
}
FAVOURABLE_SOURCES = {
    "every certificate": ("qualifications", ANY),
    "every indicator": ("innovation_indicators", ANY),
    "every purchase": ("invoices", IN),
    "every invoice": ("invoices", ANY),
}
FEEDS = {
    "sales": ("invoices", OUT),
    "purchases": ("invoices", IN),
    "tax filings": ("tax_filings", ANY),
    "taxpayer ratings": ("taxpayer_ratings", ANY),
    "social insurance": ("social_insurance", ANY),
    "debts": ("debts", ANY),
    "public records": ("public_records", ANY),
}
NEVER_HELPED = [*(feature.name for feature in MODEL_INPUTS), "tax_paid_complete_24m_fen", "pd_12m", "pd_hi"]
LIMITS = ("limit_fen", "conditional_limit_fen")


def rose(before: pl.DataFrame, after: pl.DataFrame, name: str, *, unless_told: bool = False) -> pl.DataFrame:
    """Firms whose amount is higher than before; `unless_told`: without a condition that was not there before."""
    both = before.select("uscc", "conditions", was=name).hstack(after.select(now=name, told="conditions"))
    higher = both.filter(pl.col("now") > pl.col("was"))
    return higher.filter(pl.col("told").list.set_difference("conditions").list.len() == 0) if unless_told else higher


def without(frames: Frames, name: str, where: pl.Expr, *, rows: bool = True, marks: bool = True) -> Frames:
    """The facts without the rows of a source (or of one direction), its marks, or both."""
    left = dict(frames)
    if rows:
        left[name] = frames[name].filter(~where)
    if marks:
        spoken = (pl.col("source") == name) & (where if name == "invoices" else ANY)
        left["feeds"] = frames["feeds"].filter(~spoken)
    return left


@pytest.mark.parametrize("record", FAVOURABLE_RECORDS)
def test_withholding_a_favourable_record_never_raises_a_limit(record: str, before: Before) -> None:
    world, engine, base = before("thorny_world")
    check_record(world, engine, base, record, seed=21)


def check_record(world: World, engine: Engine, base: pl.DataFrame, record: str, seed: int) -> None:
    """Held back from a feed that still says it is there, and held back so that nobody knows of it."""
    source, where = FAVOURABLE_RECORDS[record]
    held = dropped(dict(world.frames), source, where, np.random.default_rng(seed))
    assert held[source].height < world.frames[source].height
    for frames in (held, remarked(world.frames, held)):
        after = decided(engine, World(frames, world.as_of))
        for limit in LIMITS:
            found = rose(base, after, limit)
            if limit == "limit_fen":  # a purchase less may end a referral for round trade, by name
                found = found.join(base.filter(~pl.col("round_trade")), on="uscc", how="anti")
            assert found.is_empty(), f"{record}, {limit}: {found.head(5).to_dicts()}"


@pytest.mark.parametrize("what", FAVOURABLE_SOURCES)
def test_withholding_a_favourable_source_never_raises_a_limit(what: str, before: Before) -> None:
    world, engine, base = before("thorny_world")
    for marks in (True, False):
        frames = without(dict(world.frames), *FAVOURABLE_SOURCES[what], marks=marks)
        after = decided(engine, World(frames, world.as_of))
        for limit in LIMITS:
            assert (found := rose(base, after, limit)).is_empty(), f"{what}, {limit}: {found.head(5).to_dicts()}"


@pytest.mark.parametrize("feed", FEEDS)
def test_withholding_a_feed_never_raises_a_limit_without_a_new_condition(feed: str, before: Before) -> None:
    world, engine, base = before("thorny_world")
    check_feed(world, engine, base, feed)


def check_feed(world: World, engine: Engine, base: pl.DataFrame, feed: str) -> None:
    """Rows and marks, marks alone, rows alone."""
    for rows, marks in ((True, True), (False, True), (True, False)):
        frames = without(dict(world.frames), *FEEDS[feed], rows=rows, marks=marks)
        after = decided(engine, World(frames, world.as_of))
        found = rose(base, after, "limit_fen", unless_told=True)
        assert found.is_empty(), f"{feed}, rows {rows}, marks {marks}: {found.head(5).to_dicts()}"
        helped = fell(after, base).filter(pl.col("what").is_in(NEVER_HELPED))
        assert helped.is_empty(), told(helped, f"{feed}, rows {rows}, marks {marks}: withholding helped")


@pytest.mark.parametrize("feed", FEEDS)
def test_withholding_one_mark_never_raises_a_limit_without_a_new_condition(feed: str, before: Before) -> None:
    world, engine, base = before("plain_world")
    source, where = FEEDS[feed]
    marks = world.frames["feeds"]
    spoken = marks.filter((pl.col("source") == source) & (where if source == "invoices" else ANY))
    lost = one_each(spoken, np.random.default_rng(22)).select(SOURCES["feeds"].key)
    left = marks.join(lost, on=SOURCES["feeds"].key, how="anti", nulls_equal=True)
    after = decided(engine, World({**world.frames, "feeds": left}, world.as_of))
    for limit in LIMITS:
        found = rose(base, after, limit, unless_told=True)
        assert found.is_empty(), f"{feed}, {limit}: {found.head(5).to_dicts()}"


def test_withholding_unfavourable_rows_is_told_to_the_bank_or_ends_the_offer(before: Before) -> None:
    world, engine, base = before("plain_world")
    bad = {
        "debts": pl.col("overdue_days") > 0,
        "public_records": ANY,
        "tax_filings": pl.col("arrears_fen") > 0,
        "social_insurance": pl.col("arrears_fen") > 0,
        "taxpayer_ratings": pl.col("grade") == "D",
    }
    for source, where in bad.items():
        frames = without(dict(world.frames), source, where, marks=False)
        after = decided(engine, World(frames, world.as_of))
        assert frames[source].height < world.frames[source].height
        assert (found := rose(base, after, "limit_fen", unless_told=True)).is_empty(), f"{source}: {found.to_dicts()}"


def test_without_statements_no_limit_is_above_what_needs_them(before: Before) -> None:
    world, engine, base = before("plain_world")
    after = decided(engine, World(without(dict(world.frames), "financial_statements", ANY), world.as_of))
    need = engine.rulebook.policy.limit.need
    assert need is not None
    found = rose(base, after, "conditional_limit_fen")
    assert found.filter(pl.col("now") > need.required_above.value).is_empty()
    assert base["working_capital_need_fen"].is_not_null().any()


@pytest.mark.parametrize("feed", ["sales", "purchases"])
def test_withholding_a_real_feed_never_raises_a_limit(feed: str, before: Before) -> None:
    world, engine, base = before("real_world")
    check_feed(world, engine, base, feed)


@pytest.mark.parametrize("record", ["a sale", "a purchase"])
def test_withholding_a_record_of_a_real_firm_never_raises_a_limit(record: str, before: Before) -> None:
    world, engine, base = before("real_world")
    check_record(world, engine, base, record, seed=24)


@pytest.mark.soak
def test_withholding_never_pays_for_ten_thousand_firms(park_engine: Engine, soak_length: int) -> None:
    """10,000 firms at the length of 1,000 with which `make soak` runs; a feed goes in three ways, a record in two."""
    firms = 0
    for seed, world in soak_worlds(soak_length, 7_000):
        base = decided(park_engine, world)
        firms += base.height
        for feed in FEEDS:
            check_feed(world, park_engine, base, feed)
        for number, record in enumerate(FAVOURABLE_RECORDS):
            check_record(world, park_engine, base, record, seed=seed + number)
    ways = 3 * len(FEEDS) + 2 * len(FAVOURABLE_RECORDS)
    print(f"D3: {firms:,} firms x {ways} ways to withhold, none paid")
