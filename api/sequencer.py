"""Gives each event its place in the feed after its transaction committed, publishes cards, opens gates (F1, V2).

Every process runs a sequencer and the database lets one at a time lead, so the next takes over as soon as a leader's
connection is gone. It works on a connection of its own: requests that wait for the pool must not hold the feed up.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Gauge

from api.database import Connection, Overloaded, listening
from api.metrics import REGISTRY
from api.problems import out_of_reach

if TYPE_CHECKING:
    from api.service import Service

TENANT = "default"
BATCH = 500
LEAST_PAUSE_SECONDS = 0.005
BUSY_PAUSE_SECONDS = 0.05
IDLE_PAUSE_SECONDS = 0.2
RETRY_SECONDS = 0.5
PORTION = 5000
"""Most events of one transaction in a pass, so that a huge one runs into no time-out."""
STATEMENT_SECONDS = 60
"""The sequencer's own: what a pass must look through first may be much after a stand-still, and nobody waits for it."""
PASS_SECONDS = STATEMENT_SECONDS + 5.0
"""Longer than the session's time-outs: a pass that takes as long has lost its server."""

_PUBLISHED = Counter("jifen_feed_published", "Events that this process gave a place in the feed", registry=REGISTRY)
_UNPUBLISHABLE = Counter(
    "jifen_events_unpublishable", "Events that this process published without data, for a fault of their own",
    registry=REGISTRY,
)  # fmt: skip
_LAG = Gauge(
    "jifen_feed_lag_seconds", "Age of the oldest committed event that is not in the feed, as the leader saw it",
    registry=REGISTRY, multiprocess_mode="livemax",
)  # fmt: skip

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did.

    Attributes:
        leads: False: another process is at it, and the rest says nothing.
        published: how many events.
        epoch: of the places given out from now on.
        head: the last place given out.
        waiting: events are left, for the next pass or behind a transaction that is still running.
        lag_ms: age of the oldest of them.
        unpublishable: how many of the published went out without data, since a fault of their own came in the way.
    """

    leads: bool
    published: int
    epoch: int | None
    head: int | None
    waiting: bool | None
    lag_ms: int | None
    unpublishable: int


async def sequenced(connection: Connection, tenant: str = TENANT, limit: int = BATCH, portion: int = PORTION) -> Pass:
    """One pass, committed: about `limit` events are published, those of one transaction together up to `portion`."""
    row = await connection.fetchrow(
        "SELECT * FROM hall.sequence_feed($1, $2, $3)", tenant, limit, portion, timeout=PASS_SECONDS
    )
    assert row is not None  # a function with OUT parameters returns one
    return Pass(**row)


async def sequence(service: "Service") -> None:
    """Sequence until the process ends, over whatever connection can be had."""
    while True:
        try:
            async with listening(service.url, statement_timeout=f"{STATEMENT_SECONDS}s") as connection:
                await _passes(connection, service.acted)
        except Exception as error:
            if not (isinstance(error, Overloaded) or out_of_reach(error)):
                raise
            log.warning("sequencer waits for the database", fault=type(error).__name__)
        _LAG.set(0)
        await asyncio.sleep(RETRY_SECONDS)


async def _passes(connection: Connection, acted: asyncio.Event) -> None:
    """Pass after pass; at once when this process acted, else after pauses that grow while there is nothing to do."""
    pause = LEAST_PAUSE_SECONDS
    while True:
        acted.clear()
        done = await sequenced(connection)
        _PUBLISHED.inc(done.published)
        if done.unpublishable:
            _UNPUBLISHABLE.inc(done.unpublishable)
            log.error("events cannot be published as they are", count=done.unpublishable)
        _LAG.set((done.lag_ms or 0) / 1000)
        most = BUSY_PAUSE_SECONDS if done.waiting else IDLE_PAUSE_SECONDS
        pause = LEAST_PAUSE_SECONDS if done.published else min(pause * 1.5, most)
        # Not wait_for: in Python 3.11 it drops a cancellation that meets the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await acted.wait()
            pause = LEAST_PAUSE_SECONDS
