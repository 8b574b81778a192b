"""D4: facts known after the day looked from change nothing, not even the fingerprint of the facts."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.sources import SOURCES
from models.batch import Engine
from tests import make
from tests.promises.edits import Frames
from tests.promises.test_d1_same_bits import FEW, assert_same
from tests.promises.worlds import World, kept

DAYS = [date(2026, 6, 30), date(2026, 3, 14), date(2025, 8, 1)]
AMOUNTS = ("revenue_fen", "total_assets_fen", "headcount", "tax_fen", "declared_sales_fen", "balance_fen", "value")


@pytest.fixture(scope="session")
def world(plain_world: World) -> World:
    """Some firms of the park, groups among them."""
    usccs = plain_world.frames["enterprises"]["uscc"].unique().sort()
    return kept(plain_world, usccs.gather_every(2))


def known_by(world: World, day: date) -> World:
    """Only what was known by the day."""
    return World({name: rows.filter(pl.col("known_on") <= day) for name, rows in world.frames.items()}, day)


def corrected(rows: pl.DataFrame, name: str, later: date) -> pl.DataFrame:
    """Each row once more, known later and otherwise: the latest word on its key."""
    last = rows.sort("known_on").unique(SOURCES[name].key, keep="last", maintain_order=True)
    amounts = [column for column in AMOUNTS if column in rows.columns and name != "invoices"]
    changes = {column: pl.col(column) * 2 + 1 for column in amounts}
    flags = {
        "invoices": {"is_void": ~pl.col("is_void") & ~pl.col("invoice_no").str.contains(r"^[0-9]{20}$")},
        "taxpayer_ratings": {"grade": pl.lit("D")},
        "public_records": {"removed_on": pl.lit(later)},
        "debts": {"overdue_days": pl.lit(90, pl.Int64), "five_class": pl.lit("loss")},
        "qualifications": {"valid_to": pl.col("granted_on")},
        "enterprises": {"registration_status": pl.lit("revoked"), "group_id": pl.lit("G-LATER")},
        "feeds": {"row_count": pl.col("row_count") + 1},
    }.get(name, {})
    return last.with_columns(known_on=pl.lit(later), **{**changes, **flags})


def new_facts(frames: Frames, later: date) -> Frames:
    """For every firm a fact of each kind that the firm has not, known later though it happened long before."""
    firms = frames["enterprises"]["uscc"].unique().sort()
    records = {
        "invoices": make.invoice(invoice_no="LATER001", net_fen=10**9, issued_on=later - timedelta(days=60)),
        "public_records": make.public_record(kind="serious_violation", listed_on=later - timedelta(days=90)),
        "taxpayer_ratings": make.taxpayer_rating(grade="D", year=later.year - 1),
        "debts": make.debt(debt_id="later", overdue_days=400, as_of=later - timedelta(days=30)),
        "qualifications": make.qualification(
            tag="srdi", granted_on=later - timedelta(days=99), valid_to=date(2030, 1, 1)
        ),
        "innovation_indicators": make.innovation_indicator(year=later.year - 1, value=10**12),
        "feeds": make.feed(period_to=later - timedelta(days=1), row_count=77),
    }
    return {
        name: make.frame(name, [record | {"known_on": later, "uscc": uscc} for uscc in firms])
        for name, record in records.items()
    }


def with_later(world: World, later: date) -> World:
    """The world with every row corrected and every firm given new facts, all known later."""
    fresh = new_facts(world.frames, later)
    frames = {}
    for name, rows in world.frames.items():
        more = [corrected(rows, name, later)]
        if name in fresh:
            more.append(fresh[name].join(rows, on=SOURCES[name].key, how="anti", nulls_equal=True))
        frames[name] = pl.concat([rows, *(one.select(rows.columns).cast(rows.schema) for one in more)])
    return World(frames, world.as_of)


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_what_the_park_learned_later_changes_nothing(park_engine: Engine, world: World, day: date) -> None:
    then = park_engine.decided(known_by(world, day).sources(), day)
    assert then.limits.height > 20
    assert_same(park_engine.decided(world.sources(), day), then)


@pytest.mark.parametrize("days", [1, 200])
def test_corrections_and_new_facts_known_later_change_nothing(park_engine: Engine, world: World, days: int) -> None:
    later = world.as_of + timedelta(days=days)
    before = park_engine.decided(world.sources(), world.as_of)
    assert_same(park_engine.decided(with_later(world, later).sources(), world.as_of), before)


def test_the_same_facts_count_once_they_are_known(park_engine: Engine, world: World) -> None:
    later = world.as_of + timedelta(days=1)
    told = with_later(world, later).sources()
    before, after = park_engine.decided(world.sources(), later), park_engine.decided(told, later)
    assert (before.limits["input_hash"] != after.limits["input_hash"]).all()
    assert (after.limits["limit_fen"] == 0).all()


@pytest.mark.parametrize(("source", "after"), [("tax_filings", 1), ("loan_outcomes", -100)])
def test_a_doubt_cast_later_or_about_labels_changes_nothing(
    park_engine: Engine, world: World, source: str, after: int
) -> None:
    sources = world.sources()
    doubts = pl.DataFrame(
        {"uscc": world.frames["enterprises"]["uscc"].unique().sort()},
    ).select(
        "uscc",
        source=pl.lit(source),
        direction=pl.lit(None, pl.String),
        known_on=pl.lit(world.as_of + timedelta(days=after)),
    )
    object.__setattr__(sources, "doubts", doubts)
    assert_same(park_engine.decided(sources, world.as_of), park_engine.decided(world.sources(), world.as_of))


@FEW
@given(seed=st.integers(0, 2**32 - 1))
def test_any_facts_moved_past_the_day_are_as_if_they_were_not_there(
    park_engine: Engine, world: World, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    day = world.as_of - timedelta(days=int(rng.integers(0, 400)))
    past = known_by(world, day)
    share = 1 / 20
    hidden, gone = {}, {}
    for name, rows in past.frames.items():
        lot = pl.Series(rng.random(rows.height) < (0 if name in {"enterprises", "loan_outcomes"} else share))
        moved = rows.filter(lot).with_columns(known_on=pl.lit(day + timedelta(days=1)))
        gone[name] = rows.filter(~lot)
        hidden[name] = pl.concat([gone[name], moved.unique(SOURCES[name].key, maintain_order=True)])
    before = park_engine.decided(World(gone, day).sources(), day)
    assert_same(park_engine.decided(World(hidden, day).sources(), day), before)
