"""Events to put into the feed, and a subscriber that keeps what it hears."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx2
import orjson

from api.sequencer import Pass, sequenced
from tests.hall import made
from tests.hall.callers import Client

ANNOUNCED = {"state": "announced", "published_at": None, "opens_at": None, "closes_at": None}


async def emit(owner: asyncpg.Connection, subject: str = "test/1", kind: str = "fin.test.v1", **whose: Any) -> str:
    """Write an event and return its id; whose: `uscc`, `institution`, `fr` with `round`."""
    return str(
        await owner.fetchval(
            "SELECT hall.emit($1, $2, '{}'::jsonb, $3, $4, $5, $6)",
            subject, kind, whose.get("uscc"), whose.get("institution"), whose.get("fr"), whose.get("round"),
        )
    )  # fmt: skip


async def announce(owner: asyncpg.Connection, audience: list[int] | None = None, **given: Any) -> str:
    """A request whose first round is announced and not yet published; its event is written."""
    uscc = given.pop("uscc", None) or await made.enterprise(owner)
    fr = await made.request(owner, uscc, "quoted", **given)
    async with owner.transaction():
        await made.round_(owner, fr, audience=audience, **ANNOUNCED)
        await owner.execute("SELECT hall.move_request($1, 'T8', 'broadcast', 'made', hall.hall_now())", fr)
    return fr


async def broadcast(owner: asyncpg.Connection, audience: list[int] | None = None, **given: Any) -> str:
    """A request whose first round is published and claimable now."""
    await owner.execute("UPDATE hall.setting SET value = 0 WHERE name IN ('gate_ms', 'gate_waits_for_working_time')")
    fr = await announce(owner, audience, **given)
    await publish_all(owner)
    return fr


async def publish_all(owner: asyncpg.Connection, seconds: float = 20) -> Pass:
    """Sequence until nothing is left, as soon as transactions of other tests let it."""
    async with asyncio.timeout(seconds):
        while True:
            done = await sequenced(owner)
            if done.leads and not done.waiting:
                return done
            await asyncio.sleep(0.01)


async def value(owner: asyncpg.Connection, statement: str, *arguments: Any) -> Any:
    """What a statement says that says one thing."""
    return await owner.fetchval(statement, *arguments)


async def until(is_so: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: it was not in time.
    """
    async with asyncio.timeout(seconds):
        while not await is_so():  # noqa: ASYNC110  (what is waited for is in the database or in another process)
            await asyncio.sleep(0.02)


async def published(owner: asyncpg.Connection, count: int, seconds: float = 5) -> None:
    """Wait until somebody else has published so many events."""

    async def is_out() -> bool:
        return await value(owner, "SELECT head FROM hall.feed_state") >= count

    await until(is_out, seconds)


async def feed_of(owner: asyncpg.Connection) -> list[asyncpg.Record]:
    return await owner.fetch("SELECT * FROM hall.feed ORDER BY sequence")


@dataclass
class Frame:
    """One block of a stream: its fields, and `data` read as JSON."""

    event: str
    id: str
    data: Mapping[str, Any]
    raw: str

    @property
    def sequence(self) -> int:
        return int(self.id.split(".")[1])

    @property
    def prev(self) -> int:
        return int(self.id.split(".")[2])


@dataclass
class Stream:
    """What a subscriber hears."""

    response: httpx2.Response
    lines: AsyncIterator[str]
    heartbeats: int = 0
    heard: list[Frame] = field(default_factory=list)

    async def next(self, seconds: float = 10) -> Frame:
        """The next frame; heartbeats are counted.

        Raises:
            StopAsyncIteration: the stream was closed.
        """
        fields: dict[str, str] = {}
        raw: list[str] = []
        async with asyncio.timeout(seconds):
            while True:
                line = await anext(self.lines)
                raw.append(line)
                if line.startswith(":"):
                    self.heartbeats += 1
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    frame = Frame(fields["event"], fields.get("id", ""), orjson.loads(fields["data"]), "\n".join(raw))
                    self.heard.append(frame)
                    return frame

    async def events(self, count: int, seconds: float = 10) -> list[Frame]:
        """So many events of the feed."""
        return [await self.next(seconds) for _ in range(count)]


@asynccontextmanager
async def listening(client: Client, last_event_id: str | None = None, **query: Any) -> AsyncGenerator[Stream]:
    """An open stream of a client; what it begins with is not yet read."""
    headers = client.headers | ({"Last-Event-ID": last_event_id} if last_event_id else {})
    async with client.http.stream("GET", "/v1/hall/stream", params=query, headers=headers, timeout=60) as response:
        assert response.status_code == 200, await response.aread()
        yield Stream(response, response.aiter_lines())
