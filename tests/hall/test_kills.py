"""Processes are killed under load: what was acknowledged is there, and nothing is there that nobody did (I18, I19)."""

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from numpy.random import PCG64, Generator

from api.database import pool_of
from api.migrating import prepare
from api.postgres import Postgres
from api.settings import Settings
from tests.hall import racing
from tests.hall.doors import ByHttp, BySql, Door
from tests.hall.histories import Recorder, attempts
from tests.hall.judging import Verdict, verdict
from tests.hall.processes import Serving, crash

RACERS = 8
AT_ONCE = 3
READY_SECONDS = 10
"""A killed server takes calls again within so long; a quiet machine needs less than one."""

WORK_SECONDS = 60
"""After a kill two claims are won within so long; a slow machine needs a few seconds."""

DURABLE: Mapping[str, str] = {"fsync": "off"}
"""The machine stays, so what reached its file cache is kept; `synchronous_commit` is on, as in production."""
FORGETFUL: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "wal_writer_delay": "10s",
    "wal_writer_flush_after": "1GB",
    "wal_buffers": "32MB",
}
"""Commits are answered before they leave the server's memory, which dies with it."""


@dataclass
class Load:
    """Races that go on until they are told to end, whatever dies meanwhile."""

    race: racing.Race
    url: str
    ends: asyncio.Event

    async def run(self, banks: list[racing.Racer]) -> None:
        while not self.ends.is_set():
            frs = await racing.requests_at(self.url, AT_ONCE)
            await asyncio.gather(*(self.race.contested(banks, fr) for fr in frs))

    async def during(self, banks: list[racing.Racer], kills: "Kills") -> None:
        """Race while the kills are done, and finish what was begun."""
        async with asyncio.TaskGroup() as group:  # kills that fail end the races, which would wait for the server
            group.create_task(self.run(banks))
            await kills.done(self.race)
            self.ends.set()


@dataclass
class Kills:
    """What is killed at random instants, in random order."""

    postgres: Postgres
    of_server: int
    serving: Serving | None = None
    of_worker: int = 0

    async def done(self, race: racing.Race) -> None:
        order = race.draw.permutation(["server"] * self.of_server + ["worker"] * self.of_worker)
        for what in order:
            await self._work_goes_on(race)
            await asyncio.sleep(race.draw.random())
            await (self._server() if what == "server" else self._worker(race.draw))
        await self._work_goes_on(race)

    async def _work_goes_on(self, race: racing.Race) -> None:
        """Wait until two more claims were won: a kill of an idle hall shows nothing."""
        enough = race.counts.get("won", 0) + 2
        async with asyncio.timeout(WORK_SECONDS):
            while race.counts.get("won", 0) < enough:  # noqa: ASYNC110  (what is counted has no event)
                await asyncio.sleep(0.02)

    async def _server(self) -> None:
        crash(self.postgres)
        began = time.monotonic()
        await asyncio.to_thread(self.postgres.start)
        assert time.monotonic() - began < READY_SECONDS

    async def _worker(self, draw: Generator) -> None:
        assert self.serving is not None
        workers = self.serving.workers()
        os.kill(workers[int(draw.integers(len(workers)))], signal.SIGKILL)


async def through_http(home: Path, seed: int, of_worker: int, of_server: int) -> Verdict:
    """Judge a run through two serving processes."""
    draw = Generator(PCG64(seed))
    with Postgres(home, Settings().postgres_bin, DURABLE) as postgres:
        with Serving(postgres.url(), home, processes=2) as serving, Recorder(home / "client.jsonl") as recorder:
            door = ByHttp(serving.address)
            await raced(postgres, door, recorder, draw, Kills(postgres, of_server, serving, of_worker))
            door.close()
        return await judged(postgres, home, seed)


async def straight(home: Path, seed: int, settings: Mapping[str, str], of_server: int) -> Verdict:
    """Judge a run straight at the database."""
    with Postgres(home, Settings().postgres_bin, settings) as postgres:
        await prepare(postgres.url())
        async with pool_of(postgres.url(), most=RACERS * AT_ONCE) as pool, racing.publishing(postgres.url()):
            with Recorder(home / "client.jsonl") as recorder:
                await raced(postgres, BySql(pool), recorder, Generator(PCG64(seed)), Kills(postgres, of_server))
        return await judged(postgres, home, seed)


async def raced(postgres: Postgres, door: Door, recorder: Recorder, draw: Generator, kills: Kills) -> None:
    owner = await asyncpg.connect(postgres.url())
    banks = await racing.racers(owner, RACERS)
    await owner.execute("CHECKPOINT")  # the ground of the run is not at stake
    await owner.close()
    race = racing.Race(door, recorder, draw)
    await Load(race, postgres.url(), asyncio.Event()).during(banks, kills)
    print(race.counts)


async def judged(postgres: Postgres, home: Path, seed: int) -> Verdict:
    owner = await asyncpg.connect(postgres.url())
    try:
        found = await verdict(owner, attempts(home / "client.jsonl"))
    finally:
        await owner.close()
    print(f"seed {seed}: {found}")
    return found


async def test_i18_i19_no_kill_loses_or_invents_a_write(made_home: Path) -> None:
    found = await through_http(made_home, seed=20260703, of_worker=3, of_server=1)
    assert not found.faults, found
    assert found.operations > 0


@pytest.mark.parametrize("settings", [DURABLE, FORGETFUL], ids=["synchronous", "not-synchronous"])
async def test_m13_only_without_synchronous_commit_a_killed_server_loses_writes(
    made_home: Path, settings: Mapping[str, str]
) -> None:
    # One kill may come just behind a flush that somebody else caused, and lose nothing.
    found = await straight(made_home, seed=20260704, settings=settings, of_server=3)
    assert ("I18" in found.faults) == (settings is FORGETFUL), found


@pytest.mark.soak
async def test_i18_i19_fifty_kills_lose_and_invent_nothing(made_home: Path, soak_length: int) -> None:
    workers, servers = max(50, soak_length // 20), max(10, soak_length // 100)
    found = await through_http(made_home, seed=time.time_ns() % 2**32, of_worker=workers, of_server=servers)
    assert not found.faults, found
