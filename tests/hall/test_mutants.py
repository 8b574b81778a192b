"""The checkers catch faults put in on purpose, each by what should see it, and find none where none was put in."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from numpy.random import PCG64, Generator

from api.database import Connection, pool_of
from tests.hall import racing
from tests.hall.histories import Recorder, attempts
from tests.hall.judging import Verdict, verdict
from tests.hall.mutants import MUTANTS, AnswerBeforeCommit, Mutant, put_in

SECONDS = 60
"""Within which each mutant must be caught."""
CONTROL_WAVES = 3
UNCHANGED = Mutant("none", "nothing is wrong", "", frozenset())


async def contested(owner: Connection, race: racing.Race) -> None:
    """Three requests at once, a dozen racers each."""
    banks = await racing.racers(owner, 12)
    await asyncio.gather(*(race.contested(banks, fr) for fr in await racing.requests(owner, 3)))


async def limits(owner: Connection, race: racing.Race) -> None:
    """Eight requests of an enterprise whose limit is enough for two."""
    banks = await racing.racers(owner, 8)
    frs = await racing.requests(owner, 8, each_fen=1_000_000, limit_fen=2_000_000)
    await asyncio.gather(*(race.pursue(bank, fr, 1, 5) for bank, fr in zip(banks, frs, strict=True)))


async def caps(owner: Connection, race: racing.Race) -> None:
    """Two banks that may hold two claims each, and eight requests."""
    banks = await racing.racers(owner, 2, hold_cap=2)
    frs = await racing.requests(owner, 8)
    await asyncio.gather(*(race.pursue(bank, fr, 1, 5) for fr in frs for bank in banks))


async def rounds(owner: Connection, race: racing.Race) -> None:
    """Three requests that are claimed and given up again through their rounds."""
    banks = await racing.racers(owner, 8)
    await asyncio.gather(*(race.back_and_forth(banks, fr) for fr in await racing.requests(owner, 3)))


SCENARIOS: Mapping[str, Callable[[Connection, racing.Race], Awaitable[None]]] = {
    "contested": contested,
    "limits": limits,
    "caps": caps,
    "rounds": rounds,
}


@dataclass(frozen=True)
class Ground:
    """Where a mutant is hunted: a database of its own, and a folder for what the racers saw."""

    database: str
    owner: Connection
    folder: Path


@pytest.fixture
def ground(database: str, owner: Connection, tmp_path: Path) -> Ground:
    return Ground(database, owner, tmp_path)


async def hunted(ground: Ground, mutant: Mutant, scenario: str, seed: int, waves: int) -> Verdict:
    """Race wave after wave until each sort of fault that the mutant must show is seen, or waves or a minute are over.

    A fault of another sort may come first: an answer that left before its commit is at times read as free by somebody
    before any process dies. Where nothing is wrong, any fault ends the hunt. Each wave has a door of its own, which is
    closed before the verdict: a commit that is late is then over, and what is not there is lost.
    """

    def caught(judged: Verdict) -> bool:
        return bool(judged.faults) and mutant.caught_by <= judged.faults.keys()

    await ground.owner.execute(
        "UPDATE hall.setting SET value = 0 WHERE name IN ('gate_ms', 'gate_waits_for_working_time')"
    )
    await put_in(ground.owner, mutant)
    draw = Generator(PCG64(seed))
    ends = time.monotonic() + SECONDS
    written: list[Path] = []
    judged = Verdict()
    async with (
        pool_of(ground.database, least=8, most=12) as service,
        racing.publishing(ground.database),
    ):
        while not caught(judged) and len(written) < waves and time.monotonic() < ends:
            written.append(ground.folder / f"wave-{len(written)}.jsonl")
            with Recorder(written[-1]) as recorder:
                async with mutant.door(service, ground.database, draw) as door:
                    await SCENARIOS[scenario](ground.owner, racing.Race(door, recorder, draw))
            judged = await verdict(ground.owner, attempts(*written))
    print(f"{mutant.name}, {mutant.fault}: seed {seed}, wave {len(written)}: {judged}")
    return judged


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
async def test_each_mutant_is_caught_by_what_should_see_it(ground: Ground, mutant: Mutant) -> None:
    judged = await hunted(ground, mutant, mutant.race, seed=20260702, waves=10_000)
    assert mutant.caught_by <= judged.faults.keys(), judged


async def test_a_commit_that_is_late_is_not_taken_for_a_lost_one(ground: Ground) -> None:
    """M5 of processes none of which dies: every answer becomes true."""
    late = Mutant(
        "M5", "the commit is late", "contested", frozenset({"I18"}),
        door=lambda service, _owner, draw: AnswerBeforeCommit.on(service, draw, deaths=0, seconds=0.05),
    )  # fmt: skip
    judged = await hunted(ground, late, late.race, seed=20260702, waves=CONTROL_WAVES)
    assert judged.operations
    assert "I18" not in judged.faults, judged


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_where_nothing_is_wrong_nothing_is_found(ground: Ground, scenario: str) -> None:
    judged = await hunted(ground, UNCHANGED, scenario, seed=20260702, waves=CONTROL_WAVES)
    assert not judged.faults, judged
