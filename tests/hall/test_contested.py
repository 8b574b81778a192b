"""57 banks race for every request by HTTP, with keys sent twice and answers not awaited; one order explains it all."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest
from numpy.random import PCG64, Generator

from api.database import Connection
from tests.hall import racing
from tests.hall.doors import ByHttp, Racer
from tests.hall.histories import Recorder, attempts
from tests.hall.judging import Verdict, verdict
from tests.hall.processes import Serving

BANKS = 57
SHORT = 40
LONG = 3_000
AT_ONCE = 4
ROUNDS_OF = 8
"""Of so many requests one is claimed and given up again by a dozen banks, through its rounds."""
EACH_ENTERPRISE = 5
"""Requests of one enterprise share its exposure row, over which their claims must queue."""


async def raced(database: str, home: Path, requests: int, seed: int, processes: int = 1) -> Verdict:
    """Judge so many contested requests."""
    owner = await asyncpg.connect(database)
    banks = await racing.racers(owner, BANKS)
    with Serving(database, home, processes) as serving, Recorder(home / "client.jsonl") as recorder:
        race = racing.Race(door := ByHttp(serving.address), recorder, Generator(PCG64(seed)))
        for _ in range(0, requests, EACH_ENTERPRISE * AT_ONCE):
            parts = [await racing.requests(owner, EACH_ENTERPRISE) for _ in range(AT_ONCE)]
            await gates(owner, race, parts)
            await asyncio.gather(*(one_by_one(race, banks, part) for part in parts))
        for fr in await racing.requests(owner, requests // ROUNDS_OF):
            await race.back_and_forth(banks[:12], fr)
        door.close()
    judged = await verdict(owner, attempts(home / "client.jsonl"))
    await owner.close()
    assert race.counts["done"] > 0
    print(f"seed {seed}: {judged}\n{race.counts}")
    return judged


async def gates(owner: Connection, race: racing.Race, parts: Sequence[Sequence[str]]) -> None:
    """Keep some gates shut a little longer, so that racers stand before them."""
    for part in parts:
        await racing.keep_shut(owner, part[0], int(race.draw.integers(50, 300)))


async def one_by_one(race: racing.Race, banks: Sequence[Racer], part: Sequence[str]) -> None:
    for fr in part:
        await race.contested(banks, fr)


async def test_c1_c3_c4_c7_c8_one_order_explains_a_contested_run(database: str, home: Path) -> None:
    judged = await raced(database, home, SHORT, seed=20260701)
    assert not judged.faults, judged
    assert judged.requests == SHORT + SHORT // ROUNDS_OF


@pytest.mark.soak
async def test_c1_c3_c4_c7_c8_one_order_explains_a_long_contested_run(
    database: str, home: Path, soak_length: int
) -> None:
    requests = max(LONG, soak_length)
    judged = await raced(database, home, requests, seed=int.from_bytes(home.name.encode()[-6:]), processes=2)
    assert not judged.faults, judged
    assert judged.requests >= requests
