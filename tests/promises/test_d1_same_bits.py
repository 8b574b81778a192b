"""D1: a batch, chunks, and one enterprise at a time give the same bits, whatever the order of the rows handed in."""

import os
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models.batch import Decided, Engine
from models.replay import row_bytes
from tests.promises.worlds import World, kept

TRIES = 2 if "JIFEN_SOAK" not in os.environ else max(2, int(os.environ["JIFEN_SOAK"]) // 10)
FEW = settings(max_examples=TRIES, phases=[Phase.generate])
"""Each try decides on a park, and no shrinking of a seed makes a fault plainer."""


@pytest.fixture(scope="session")
def world(thorny_world: World) -> World:
    """A world with fewer firms: many are also decided on alone."""
    usccs = thorny_world.frames["enterprises"]["uscc"].unique().sort()
    return kept(thorny_world, usccs.gather_every(2))


@pytest.fixture(scope="session")
def whole(park_engine: Engine, world: World) -> Decided:
    """All firms in one go."""
    return park_engine.decided(world.sources(), world.as_of, asked=asked_of(world))


def asked_of(world: World) -> pl.DataFrame:
    """Every third firm asks for something."""
    usccs = world.frames["enterprises"]["uscc"].unique().sort().gather_every(3)
    return pl.DataFrame({"uscc": usccs}).with_columns(asked_fen=(pl.int_range(pl.len()) + 1) * 3_700_000)


def shuffled(world: World, seed: int) -> World:
    """The same rows in another order in every source."""
    rng = np.random.default_rng(seed)
    return World({name: rows[rng.permutation(rows.height)] for name, rows in world.frames.items()}, world.as_of)


def assert_same(found: Decided, expected: Decided) -> None:
    for name in ("limits", "features", "terms"):
        left, right = getattr(found, name), getattr(expected, name)
        differs = [column for column in right.columns if not left[column].equals(right[column])]
        assert left.columns == right.columns
        assert not differs, f"{name}: {differs}"
    assert bytes_of(found.limits) == bytes_of(expected.limits)


def bytes_of(limits: pl.DataFrame) -> list[bytes]:
    return [row_bytes(limits[row]) for row in range(limits.height)]


def together(parts: Sequence[Decided]) -> Decided:
    joined = {name: pl.concat([getattr(part, name) for part in parts]) for name in ("limits", "features", "terms")}
    order = joined["limits"]["uscc"].arg_sort()
    return Decided(**{name: table[order] for name, table in joined.items()})


def of(whole: Decided, usccs: pl.Series) -> Decided:
    """The decisions of some firms only."""
    rows = whole.limits["uscc"].is_in(usccs.implode()).arg_true()
    return Decided(whole.limits[rows], whole.features[rows], whole.terms[rows])


def test_each_enterprise_alone_gives_the_bits_of_the_batch(park_engine: Engine, world: World, whole: Decided) -> None:
    sources, asked = world.sources(), asked_of(world)
    usccs = whole.limits["uscc"].gather_every(5)
    alone = together([park_engine.decided(sources, world.as_of, only=[uscc], asked=asked) for uscc in usccs])
    assert_same(alone, of(whole, usccs))


def test_one_enterprise_checked_from_its_own_rows_gives_the_bits_of_the_batch(
    park_engine: Engine, world: World, whole: Decided
) -> None:
    grouped = world.frames["enterprises"].filter(pl.col("group_id").is_not_null())["uscc"]
    loners = whole.limits.filter(~pl.col("uscc").is_in(grouped.implode()))["uscc"]
    for uscc in loners.gather_every(17):
        alone = kept(world, pl.Series([uscc]))
        found = park_engine.decided(alone.sources(), alone.as_of, asked=asked_of(world))
        assert row_bytes(found.limits) == row_bytes(whole.limits.filter(pl.col("uscc") == uscc))


@pytest.mark.parametrize("chunk", [9, 33])
def test_the_size_of_a_chunk_changes_no_bit(
    park_engine: Engine, world: World, whole: Decided, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.batch.CHUNK", chunk)
    assert_same(park_engine.decided(world.sources(), world.as_of, asked=asked_of(world)), whole)


@FEW
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(1, 40))
def test_order_and_cut_change_no_bit(park_engine: Engine, world: World, whole: Decided, seed: int, cut: int) -> None:
    sources, asked = shuffled(world, seed).sources(), asked_of(world)
    usccs = np.random.default_rng(seed).permutation(whole.limits["uscc"].to_numpy())
    parts = [
        park_engine.decided(sources, world.as_of, only=usccs[start : start + cut].tolist(), asked=asked)
        for start in range(0, len(usccs), cut)
        if start < 4 * cut
    ]
    done = together(parts)
    assert_same(done, of(whole, done.limits["uscc"]))


def test_real_firms_in_another_order_and_alone_give_the_same_bits(real_engine: Engine, real_world: World) -> None:
    whole = real_engine.decided(real_world.sources(), real_world.as_of)
    assert_same(real_engine.decided(shuffled(real_world, 5).sources(), real_world.as_of), whole)
    sources = real_world.sources()
    usccs = whole.limits["uscc"].gather_every(9)
    alone = together([real_engine.decided(sources, real_world.as_of, only=[uscc]) for uscc in usccs])
    assert_same(alone, of(whole, usccs))
