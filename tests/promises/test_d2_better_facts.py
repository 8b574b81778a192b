"""D2: a better fact never lowers a limit, a worse one never raises it; splitting changes nothing, washing never helps.

Exempt by name: programme scope (zone, size class), the need-type cap, the stage of innovation points, corrections of
established_on (no edit here touches them), and the referral of trade that goes round: by it `limit_fen` may become 0,
while `conditional_limit_fen` keeps the promise.
"""

import numpy as np
import polars as pl
import pytest

from models.batch import Engine
from scoring.catalogue import CATALOGUE, FEEDS
from tests.promises.conduct_edits import CONDUCT_EDITS
from tests.promises.conftest import Before, soak_worlds
from tests.promises.edits import INVOICE_EDITS, Edit
from tests.promises.worlds import World, decided, fell, remarked, told

ALL_EDITS = (*INVOICE_EDITS, *CONDUCT_EDITS)
FEED_COLUMNS = [feature.name for feature in FEEDS]
WORLDS = ("plain_world", "thorny_world")


def check(edit: Edit, world: World, engine: Engine, base: pl.DataFrame, seed: int, *, may_miss: bool = False) -> int:
    """Edit every firm of the world, decide again, and compare; returns how many firms were moved by it.

    An edit that finds nothing to edit shows nothing, so it fails unless it `may_miss`.
    """
    rng = np.random.default_rng(seed)
    changed = edit.change(dict(world.frames), world.as_of, rng)
    found = any(not changed[name].equals(rows) for name, rows in world.frames.items())
    assert found or may_miss, f"{edit.name} found no row"
    frames = remarked(world.frames, changed)
    after = decided(engine, World(frames, world.as_of))
    assert after.select(FEED_COLUMNS).equals(base.select(FEED_COLUMNS)), f"{edit.name}: the edit broke or mended a feed"
    if edit.way != "worse":
        assert (faults := fell(base, after)).is_empty(), told(faults, f"{edit.name} (seed {seed}) did harm")
    if edit.way != "better":
        assert (faults := fell(after, base)).is_empty(), told(faults, f"{edit.name} (seed {seed}) helped")
    names = [name for name in CATALOGUE if name in base.columns]
    moved = [base[name].ne_missing(after[name]) for name in names]
    return pl.DataFrame(moved).select(pl.any_horizontal(pl.all()).sum()).item() if moved else 0


@pytest.mark.parametrize("edit", INVOICE_EDITS, ids=lambda edit: edit.name)
def test_an_invoice_moves_every_answer_its_own_way(edit: Edit, before: Before) -> None:
    world, engine, base = before("thorny_world")
    assert check(edit, world, engine, base, seed=11) > 0 or edit.way == "same", "the edit reached no firm"


@pytest.mark.parametrize("edit", CONDUCT_EDITS, ids=lambda edit: edit.name)
def test_a_fact_of_conduct_moves_every_answer_its_own_way(edit: Edit, before: Before) -> None:
    world, engine, base = before("plain_world")
    assert check(edit, world, engine, base, seed=12) > 0 or edit.way == "same", "the edit reached no firm"


@pytest.mark.parametrize("edit", INVOICE_EDITS, ids=lambda edit: edit.name)
def test_an_invoice_of_a_real_firm_moves_every_answer_its_own_way(edit: Edit, before: Before) -> None:
    world, engine, base = before("real_world")
    assert check(edit, world, engine, base, seed=13) > 0 or edit.way == "same", "the edit reached no firm"


def test_the_edits_are_about_firms_that_have_something_to_lose(before: Before) -> None:
    for name in WORLDS:
        _, _, base = before(name)
        assert (base["limit_fen"] > 0).sum() >= 20
        assert (base["conditional_limit_fen"] > 0).sum() >= 30


@pytest.mark.soak
def test_ten_thousand_firms_under_every_edit(park_engine: Engine, soak_length: int) -> None:
    """10,000 firms at the length of 1,000 with which `make soak` runs."""
    firms = 0
    for seed, world in soak_worlds(soak_length, 1_000):
        base = decided(park_engine, world)
        firms += base.height
        for number, edit in enumerate(ALL_EDITS):
            check(edit, world, park_engine, base, seed=100 * seed + number, may_miss=True)
    print(f"D2: {firms:,} firms x {len(ALL_EDITS)} edits, no answer moved the wrong way")


@pytest.mark.soak
def test_every_real_firm_under_every_edit_of_invoices(before: Before, soak_length: int) -> None:
    world, engine, base = before("all_real_world")
    for round_ in range(max(1, soak_length // 500)):
        for number, edit in enumerate(INVOICE_EDITS):
            check(edit, world, engine, base, seed=1_000 * round_ + number)
