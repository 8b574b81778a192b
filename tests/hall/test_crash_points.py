"""The database is lost at a named point of a claim: it is made once, and a repetition gets the first answer (I4)."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from api.database import Connection
from tests.hall import racing
from tests.hall.callers import serving
from tests.hall.doors import PATIENCE, ByHttp

SHORT = 3
LONG = 50


@dataclass
class Cable:
    """Carries bytes between the service and its database, and can be cut.

    Attributes:
        breaks_at: the first answer that holds these bytes is lost, and every connection with it.
        broke: set when that happened.
    """

    host: str
    port: int
    breaks_at: bytes | None = None
    broke: asyncio.Event = field(default_factory=asyncio.Event)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways, until either end or the cable breaks."""
        far_reader, far_writer = await asyncio.open_connection(self.host, self.port)
        self.writers |= {writer, far_writer}
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer, answers=True))
        self.writers -= {writer, far_writer}

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool = False) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                if answers and self.breaks_at is not None and self.breaks_at in data:
                    self.breaks_at = None
                    self.broke.set()
                    self.cut()
                    return
                sink.write(data)
        sink.close()

    def cut(self) -> None:
        """Break every connection; what is on the way is lost."""
        for writer in self.writers:
            writer.transport.abort()


@asynccontextmanager
async def cable_to(database: str) -> AsyncGenerator[tuple[Cable, str]]:
    """A cable, and the database's address over it."""
    parts = urlsplit(database)
    cable = Cable(parts.hostname or "", parts.port or 5432)
    listening = await asyncio.start_server(cable.carry, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield cable, parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
    finally:
        cable.cut()
        listening.close()


Point = Callable[[Cable, Connection, str], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def between_commit_and_answer(cable: Cable, owner: Connection, fr: str) -> AsyncGenerator[None]:
    """The claim sent in the block is committed, and the service never hears of it."""
    cable.broke.clear()
    cable.breaks_at = b'"deadline_contact"'  # no event says that: only the answer to a won claim
    yield
    await cable.broke.wait()
    assert await owner.fetchval("SELECT count(*) FROM hall.claim WHERE fr_id = $1", fr) == 1


@asynccontextmanager
async def between_key_and_effect(_cable: Cable, owner: Connection, fr: str) -> AsyncGenerator[None]:
    """The claim sent in the block has written its key and waits for the round when its session dies."""
    async with owner.transaction():
        await owner.execute("SELECT 1 FROM hall.round WHERE fr_id = $1 FOR UPDATE", fr)
        yield
        while await owner.fetchval(END_WAITING) is None:
            # Within a transaction the list of sessions is kept, and the claim's may be newer than it.
            await owner.execute("SELECT pg_stat_clear_snapshot()")
            await asyncio.sleep(0.002)


@asynccontextmanager
async def between_commit_and_the_drivers_last_step(_cable: Cable, owner: Connection, fr: str) -> AsyncGenerator[None]:
    """The claim sent in the block is committed, and the driver loses its place, as where a server dies in between."""
    fetchrow, is_lost = asyncpg.Connection.fetchrow, asyncio.Event()

    async def lost(connection: Connection, query: str, *values: Any, **options: Any) -> asyncpg.Record | None:
        row = await fetchrow(connection, query, *values, **options)
        if "hall.once" not in query or is_lost.is_set():
            return row
        is_lost.set()
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncpg.Connection, "fetchrow", lost)
        yield
        await is_lost.wait()
    assert await owner.fetchval("SELECT count(*) FROM hall.claim WHERE fr_id = $1", fr) == 1


END_WAITING = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


@dataclass(frozen=True)
class Ground:
    """A database of the test's own, and an empty folder for the service."""

    database: str
    owner: Connection
    home: Path


@pytest.fixture
def ground(database: str, owner: Connection, home: Path) -> Ground:
    return Ground(database, owner, home)


async def claimed_once(ground: Ground, point: Point, times: int) -> None:
    """Claim so often, break each claim at the point, and hold the answer against its repetition and the database."""
    owner = ground.owner
    (bank,) = await racing.racers(owner, 1)
    frs = await racing.requests(owner, times)
    body = {"round": 1, "outlet_id": bank.bank.outlet, "product_id": f"{bank.bank.product}@1", "card_version": 5}
    async with cable_to(ground.database) as (cable, address), serving(address, ground.home) as hall:
        door = ByHttp(str(hall.http.base_url))
        assert (await door.read(bank, frs[0])).status == 200
        for fr in frs:
            key = secrets.token_hex(8)
            async with point(cable, owner, fr):
                claim = asyncio.create_task(door.grab(bank, fr, body, key, PATIENCE))
                await asyncio.sleep(0)
            answer = await claim
            again = await door.grab(bank, fr, body, key, PATIENCE)
            assert (answer.status, again.status, again.is_replayed) == (201, 201, True), answer
            kept = await owner.fetch("SELECT body FROM hall.idempotency WHERE key = $1", key)
            assert [one["body"].encode() for one in kept] == [answer.body] == [again.body]
            assert await owner.fetchval("SELECT count(*) FROM hall.claim WHERE fr_id = $1", fr) == 1
        door.close()


POINTS = [between_commit_and_answer, between_commit_and_the_drivers_last_step, between_key_and_effect]


@pytest.mark.parametrize("point", POINTS, ids=lambda one: one.__name__)
async def test_i4_c7_a_claim_broken_at_a_named_point_is_made_once(ground: Ground, point: Point) -> None:
    await claimed_once(ground, point, SHORT)


@pytest.mark.soak
@pytest.mark.parametrize("point", POINTS, ids=lambda one: one.__name__)
async def test_i4_c7_each_named_point_is_safe_fifty_times(ground: Ground, point: Point) -> None:
    await claimed_once(ground, point, LONG)
