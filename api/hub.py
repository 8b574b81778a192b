"""The feed in this process: read once over one LISTEN connection, encoded once, handed to every stream and long poll.

The table is the truth: it is read each second and after each reconnection, and a notification only hastens that (V12).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from asyncpg import Record
from prometheus_client import Counter, Gauge

from api import feed
from api.database import Connection, Overloaded, listening
from api.feed import Reader
from api.metrics import REGISTRY
from api.problems import Problem, out_of_reach
from api.sequencer import TENANT

if TYPE_CHECKING:
    from api.service import Service

RING = 4096
"""So many of the newest rows are kept, for subscribers who come back."""

MOST_QUEUED = 256
PAGE = 250
"""Rows of one read: not more than may be queued, or one read would end every stream as lagged."""

POLL_SECONDS = 1.0
RETRY_SECONDS = 0.5
READ_SECONDS = 5.0
TEND_SECONDS = 1.0

_OPENED = Counter("jifen_streams_opened", "Streams that were opened", registry=REGISTRY)
_CLOSED = Counter("jifen_streams_closed", "Streams that were closed", ["why"], registry=REGISTRY)
_LIVE = Gauge("jifen_streams_live", "Streams that are open", registry=REGISTRY, multiprocess_mode="livesum")
_HEAD = Gauge("jifen_feed_head", "Last place of the feed that this process has read", registry=REGISTRY,
    multiprocess_mode="livemin")  # fmt: skip

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Row:
    """One event of the feed as it goes out.

    Attributes:
        frame: its lines of the stream, but for the `id`, which each subscriber has its own of.
        keys: of those who may have it.
    """

    sequence: int
    frame: bytes
    keys: frozenset[str]


def frame_of(row: Mapping[str, str] | Record) -> bytes:
    """The lines `event` and `data` of an event; its body has no line breaks."""
    return f"event: {row['type']}\ndata: {row['body']}\n\n".encode()


def lines_of(rows: Sequence[Row], epoch: int, prev: int) -> bytes:
    """Rows as a stream has them: each with its id, which names the reader's event before it (V7)."""
    parts: list[bytes] = []
    for row in rows:
        parts += (b"id: %d.%d.%d\n" % (epoch, row.sequence, prev), row.frame)
        prev = row.sequence
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one read that the same readers may have, in order; there is one at least."""

    rows: Sequence[Row]
    _lines: dict[tuple[int, int], bytes] = field(default_factory=dict, init=False, compare=False, repr=False)

    def lines(self, epoch: int, prev: int) -> bytes:
        """See `lines_of`; made once for all whose event before was the same, and that is nearly everybody."""
        known = self._lines.get((epoch, prev))
        if known is None:
            known = self._lines[epoch, prev] = lines_of(self.rows, epoch, prev)
        return known


class Subscriber:
    """A stream or a long poll: what is still to be handed to it, and whether it shall end.

    Attributes:
        at_once: hands a batch over without waiting, or says that it cannot; None while the stream is busy.
        ending: why it ends; None: it lives.
        writing: the time-out of a write under way, so that whoever ends the stream may shorten it.
    """

    __slots__ = ("_rows", "_wake", "at_once", "ending", "key", "token_sha256", "writing")

    def __init__(self, key: str, token_sha256: bytes = b"") -> None:
        self.key = key
        self.token_sha256 = token_sha256
        self.at_once: Callable[[Batch], bool] | None = None
        self.ending: str | None = None
        self.writing: asyncio.Timeout | None = None
        self._rows: deque[Row] = deque()
        self._wake: asyncio.Future[None] | None = None

    def offer(self, batch: Batch) -> None:
        """Hand rows over at once or queue them; too many end the subscription as `lagged`, and its place stays good."""
        if self.ending is not None:
            return
        if len(self._rows) + len(batch.rows) > MOST_QUEUED:
            self.end("lagged")
            return
        # What is queued goes first.
        if self.at_once is not None and not self._rows and self.at_once(batch):
            return
        self._rows.extend(batch.rows)
        self.wake()

    def end(self, why: str) -> None:
        """End it, unless it ends already; what is queued is not handed out any more."""
        if self.ending is None:
            self.ending = why
            self._rows.clear()
            if self.writing is not None and why != "gone":
                self.writing.reschedule(min(self.writing.when() or 0, asyncio.get_running_loop().time() + 1))
            self.wake()

    def take(self) -> list[Row]:
        """All that is queued, in order."""
        rows = list(self._rows)
        self._rows.clear()
        return rows

    async def wait(self, seconds: float) -> None:
        """Until something is queued, or it ends, or so many seconds have passed."""
        if self._rows or self.ending is not None:
            return
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        timer = loop.call_later(seconds, self.wake)
        try:
            await self._wake
        finally:
            timer.cancel()
            self._wake = None

    def wake(self) -> None:
        """End its `wait`."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Hub:
    """The newest rows of the feed, and all who wait for the next.

    Attributes:
        epoch, head, oldest: see `feed.State`; head is the last row read here. Epoch 0: not all was read yet.
        positions: how far clients were handed the feed, to be kept: see `feed.keep_positions`.
        live: streams that are open.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.head = 0
        self.oldest = 0
        self._read_at = (datetime.now(UTC), 0.0)
        self.positions: dict[tuple[str, str, str], int] = {}
        self.live: set[Subscriber] = set()
        self.opened = 0
        self.closed = 0
        self._ring: list[Row] = []
        self._waiting: dict[str, set[Subscriber]] = {}
        self._institutions: dict[int, str] = {}
        self._advanced = asyncio.Condition()

    # ------------------------------------------------------------------------------------------------- subscribers

    def open(self, subscriber: Subscriber) -> None:
        """Count a stream; it gets nothing before it joins."""
        self.live.add(subscriber)
        self.opened += 1
        _OPENED.inc()
        _LIVE.inc()

    def close(self, subscriber: Subscriber) -> None:
        """The end of a stream that was opened."""
        self.leave(subscriber)
        self.live.discard(subscriber)
        self.closed += 1
        _CLOSED.labels(subscriber.ending or "failed").inc()
        _LIVE.dec()

    def join(self, subscriber: Subscriber) -> None:
        """From now on the subscriber is offered every row behind `head` that it may have."""
        self._waiting.setdefault(subscriber.key, set()).add(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """The subscriber is offered nothing more."""
        same = self._waiting.get(subscriber.key)
        if same is not None:
            same.discard(subscriber)
            if not same:
                del self._waiting[subscriber.key]

    def end_all(self, why: str) -> None:
        """End every stream and long poll."""
        for subscriber in [*self.live, *(one for same in self._waiting.values() for one in same)]:
            subscriber.end(why)

    def handed(self, reader: Reader, means: str, sequence: int) -> None:
        """Note that a client was handed the feed up to a place."""
        self.positions[reader.client_id, reader.outlet_id or "", means] = sequence

    # ------------------------------------------------------------------------------------------------ what is kept

    def begins(self) -> int:
        """The place of the first row that is kept; head + 1: none is."""
        return self._ring[0].sequence if self._ring else self.head + 1

    def kept_after(self, place: int, key: str) -> list[Row]:
        """What a reader may have of the rows behind `place`, which is not before the first that is kept."""
        return [row for row in self._ring[place + 1 - self.begins() :] if key in row.keys]

    def kept_place(self, through: int, key: str) -> int | None:
        """The place of the reader's last kept row up to and with `through`; None: the table knows."""
        for row in reversed(self._ring[: max(0, through + 1 - self.begins())]):
            if key in row.keys:
                return row.sequence
        return 0 if self.begins() == 1 else None

    def now(self) -> datetime:
        """The time of the hall: as the database told it last, and what has passed since."""
        told, at = self._read_at
        return told + timedelta(seconds=time.monotonic() - at)

    def streams_of(self, key: str) -> int:
        """How many streams of the same reader are open."""
        return sum(one.key == key for one in self.live)

    async def reached(self, place: int, seconds: float) -> bool:
        """Whether this process has read the feed up to a place, or does so in time."""
        try:
            async with asyncio.timeout(seconds), self._advanced:
                await self._advanced.wait_for(lambda: self.head >= place)
        except TimeoutError:
            return False
        return True

    # --------------------------------------------------------------------------------------------------- following

    async def follow(self, connection: Connection) -> None:
        """Read the feed as it grows, over a connection of its own."""
        notified = asyncio.Event()
        await connection.add_listener("hall_feed", lambda *_: notified.set())
        while True:
            notified.clear()
            await self._read(connection)
            # Not wait_for: in Python 3.11 it drops a cancellation that meets the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await notified.wait()

    async def _read(self, connection: Connection) -> None:
        epoch = self.epoch
        while True:
            async with asyncio.timeout(READ_SECONDS):
                state, rows = await feed.news(connection, TENANT, self.head, PAGE)
                if any(no not in self._institutions for row in rows for no in row["audience"] or ()):
                    self._institutions = await feed.institutions_of_outlets(connection)
            self.oldest = state.oldest
            self._read_at = (state.now, time.monotonic())
            if state.epoch != epoch or state.head < self.head:
                # The first time, or all places given out before mean nothing any more. Nobody begins before all is
                # read.
                self.epoch = 0
                self.end_all("reset")
                self._ring.clear()
                self.head = max(0, state.head - RING)
                epoch = state.epoch
                continue
            if rows:
                self._take([Row(row["sequence"], frame_of(row), feed.keys_of(row, self._institutions)) for row in rows])
                async with self._advanced:
                    self._advanced.notify_all()
            if not rows or self.head >= state.head:
                break
        self.epoch = epoch

    def _take(self, rows: Sequence[Row]) -> None:
        offered: dict[str, list[Row]] = {}
        for row in rows:
            self._ring.append(row)
            self.head = row.sequence
            for key in row.keys & self._waiting.keys():
                offered.setdefault(key, []).append(row)
        batches: dict[tuple[int, ...], Batch] = {}
        for key, own in offered.items():
            batch = batches.setdefault(tuple(row.sequence for row in own), Batch(own))
            for subscriber in self._waiting[key]:
                subscriber.offer(batch)
        _HEAD.set(self.head)
        # Seldom, since cutting moves all that stays.
        if len(self._ring) > 2 * RING:
            del self._ring[:-RING]


async def follow_feed(service: "Service") -> None:
    """Follow the feed until the process ends, over whatever connection can be had."""
    while True:
        try:
            async with listening(service.url) as connection:
                await service.hub.follow(connection)
        except Exception as error:
            if not (isinstance(error, Overloaded) or out_of_reach(error)):
                raise
            log.warning("hub waits for the database", fault=type(error).__name__)
        await asyncio.sleep(RETRY_SECONDS)


async def tend_streams(service: "Service") -> None:
    """Keep the clients' places, end streams whose token does not work any more, and all as the process ends (V11)."""
    hub = service.hub
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(TEND_SECONDS):
                await service.closing.wait()
        if service.closing.is_set():
            hub.end_all("bye")
            await asyncio.sleep(0.1)
        try:
            await _tended(service)
        except Exception as error:
            if not (isinstance(error, Overloaded) or out_of_reach(error)):
                raise
            log.warning("streams are not tended", fault=type(error).__name__)


async def _tended(service: "Service") -> None:
    hub = service.hub
    if hub.positions:
        positions, hub.positions = hub.positions, {}
        try:
            await feed.keep_positions(service.pool, positions)
        except BaseException:
            hub.positions = positions | hub.positions
            raise
    for subscriber in list(hub.live):
        try:
            await service.tokens.caller_by_hash(service.pool, subscriber.token_sha256)
        except Problem:
            subscriber.end("reauth")
