"""One open stream (Server-Sent Events): hello, what was missed, then every event as it comes, until a reason to end.

A bare ASGI answer: no generator and no group of tasks for each subscriber. While a stream stands idle the hub writes to
it itself; its own task wakes for a heartbeat, for what its socket does not take at once, and for the end.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Generator
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api import feed
from api.database import Pool
from api.feed import Cursor, Reader
from api.hub import PAGE, Batch, Hub, Row, Subscriber, frame_of, lines_of
from api.problems import Problem

HEARTBEAT_SECONDS = 15.0
PROGRESS_SECONDS = 10.0
"""A socket that takes nothing for so long belongs to a subscriber who lags."""

ENDING_SECONDS = 1.0
"""The same for one that ends."""

BEHIND_SECONDS = 3.0
"""How long this process may need to reach a place that another process handed out."""

MOST_BYTES = 32 * 1024
"""Most bytes of a write: less than what the server buffers, so that progress is seen."""

RETRY_MS = 2000
SNAPSHOT = "/v1/hall"
HEARTBEAT = b":\n\n"

_SEND = "jifen.send"


class Lagged(Exception):
    """The socket made no progress, or the stream ended while it made none."""


def with_bare_send(app: ASGIApp) -> ASGIApp:
    """The application, told the server's own `send`: what an open stream says passes by all that surrounds a call."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        scope[_SEND] = send
        await app(scope, receive, send)

    return called


class Begun:
    """The rest of something awaitable that was begun without a task and has to wait."""

    def __init__(self, waits_for: object, rest: Generator[Any, Any, Any]) -> None:
        self._waits_for = waits_for
        self._rest = rest

    def __await__(self) -> Generator[Any, Any, None]:
        """Go on in the task that awaits it."""
        waits_for = self._waits_for
        try:
            while True:
                try:
                    yield waits_for
                except BaseException as error:  # noqa: BLE001  (a cancellation is for the rest as well)
                    waits_for = self._rest.throw(error)
                else:
                    waits_for = self._rest.send(None)
        except StopIteration:
            return


def begun(work: Awaitable[None]) -> Begun | None:
    """Do as much of `work` as can be done at once, and return what is left of it."""
    steps = work.__await__()
    try:
        return Begun(next(steps), steps)
    except StopIteration:
        return None


class Stream(Response):
    """The answer of `GET /v1/hall/stream`.

    Args:
        hub: of this process.
        pool: for what the hub does not keep any more.
        reader: whose events.
        token_sha256: the stream ends when this token does.
        after: the place that the subscriber has reached; None: it begins now.
        heartbeat_seconds: of silence before a heartbeat.
        progress_seconds: see `PROGRESS_SECONDS`.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        hub: Hub,
        pool: Pool,
        reader: Reader,
        *,
        token_sha256: bytes = b"",
        after: Cursor | None = None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        progress_seconds: float = PROGRESS_SECONDS,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._hub = hub
        self._pool = pool
        self._reader = reader
        self._after = after
        self._heartbeat_seconds = heartbeat_seconds
        self._progress_seconds = progress_seconds
        self._subscriber = Subscriber(reader.key, token_sha256)
        self._epoch = hub.epoch
        self._place = 0
        self._prev = 0
        self._wrote_at = 0.0
        self._left: Begun | Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the stream open until the client leaves or there is a reason to end it."""
        subscriber = self._subscriber
        self._hub.open(subscriber)
        gone = asyncio.ensure_future(_gone(receive, subscriber))
        try:
            # Before the answer begins, so that a database out of reach is a problem and not half a stream.
            has_begun = await self._begun()
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            self._send: Send = scope.get(_SEND, send)
            if has_begun:
                await self._followed()
            else:
                subscriber.end("reset")
            if subscriber.ending != "gone":
                await self._write(self._farewell(), more=False)
        except (Lagged, OSError):
            subscriber.end("lagged")
        finally:
            gone.cancel()
            self._hub.close(subscriber)

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        await self._written(begun(self._send({"type": "http.response.body", "body": data, "more_body": more})))

    async def _written(self, left: Begun | None) -> None:
        """Wait until the socket took the rest of a write.

        Raises:
            Lagged: it did not in time.
        """
        subscriber = self._subscriber
        if left is not None:
            seconds = self._progress_seconds
            if subscriber.ending is not None:
                seconds = min(seconds, ENDING_SECONDS)
            try:
                async with asyncio.timeout(seconds) as subscriber.writing:
                    await left
            except TimeoutError:
                raise Lagged from None
            finally:
                subscriber.writing = None
        self._wrote_at = asyncio.get_running_loop().time()

    async def _followed(self) -> None:
        subscriber, hub = self._subscriber, self._hub
        clock = asyncio.get_running_loop().time
        await self._write(self._hello())
        await self._caught_up()
        while subscriber.ending is None:
            subscriber.at_once = self._at_once
            await subscriber.wait(max(0.0, self._wrote_at + self._heartbeat_seconds - clock()))
            subscriber.at_once = None
            if self._left is not None:
                left, self._left = self._left, None
                if isinstance(left, Exception):
                    raise left
                await self._written(left)
                self._handed(self._prev)
            head = hub.head
            rows = subscriber.take()
            if rows:
                await self._hand(rows, head)
            elif subscriber.ending is None:
                self._place = head
                if clock() >= self._wrote_at + self._heartbeat_seconds:
                    await self._write(HEARTBEAT)

    def _at_once(self, batch: Batch) -> bool:
        """Write a batch; what the socket does not take at once, and a fault, is left to the task."""
        data = batch.lines(self._epoch, self._prev)
        if len(data) > MOST_BYTES:
            return False
        self._prev = batch.rows[-1].sequence
        try:
            self._left = begun(self._send({"type": "http.response.body", "body": data, "more_body": True}))
        except Exception as error:  # noqa: BLE001  (it is this stream's, not that of the hub and all others)
            self._left = error
        if self._left is None:
            self._handed(self._prev)
            self._wrote_at = asyncio.get_running_loop().time()
        else:
            self._subscriber.at_once = None
            self._subscriber.wake()
        return True

    def _handed(self, place: int) -> None:
        self._place = place
        self._hub.handed(self._reader, "stream", place)

    async def _begun(self) -> bool:
        """Whether the subscriber's place is one that can be resumed; the stream then stands there."""
        hub = self._hub
        if self._after is not None:
            if self._after.epoch != self._epoch or not await hub.reached(self._after.sequence, BEHIND_SECONDS):
                return False
            if self._after.sequence < hub.oldest - 1:
                return False
        self._place = hub.head if self._after is None else self._after.sequence
        known = hub.kept_place(self._place, self._reader.key)
        self._prev = await feed.last_own_place(self._pool, self._reader, self._place) if known is None else known
        return True

    async def _caught_up(self) -> None:
        """Hand out all up to the head, from the table and then from what is kept, and join without a gap."""
        hub, reader = self._hub, self._reader
        while self._subscriber.ending is None:
            begins = hub.begins()
            if self._place + 1 < begins:
                found = await feed.own_rows(self._pool, reader, self._place, begins, PAGE)
                rows = [Row(one["sequence"], frame_of(one), frozenset()) for one in found]
                through = begins - 1 if len(found) < PAGE else rows[-1].sequence
            else:
                rows = hub.kept_after(self._place, reader.key)[:PAGE]
                through = hub.head if len(rows) < PAGE else rows[-1].sequence
            await self._hand(rows, through)
            if self._place == hub.head:
                hub.join(self._subscriber)
                return

    async def _hand(self, rows: list[Row], through: int) -> None:
        """Hand out rows; with them the stream stands at `through`, unless it ended before all were out."""
        first = size = 0
        for number, row in enumerate(rows, start=1):
            size += len(row.frame)
            if size >= MOST_BYTES or number == len(rows):
                data = lines_of(rows[first:number], self._epoch, self._prev)
                self._prev = row.sequence
                await self._write(data)
                self._handed(row.sequence)
                first, size = number, 0
                if self._subscriber.ending is not None:
                    return
        self._place = through

    def _hello(self) -> bytes:
        """The first frame (V8). Its id is where the stream stands, so that a client without events can resume too."""
        hub = self._hub
        told = {
            "head": f"{hub.epoch}.{hub.head}",
            "oldest": f"{hub.epoch}.{hub.oldest}",
            "server_time": hub.now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "heartbeat_seconds": self._heartbeat_seconds,
        }
        return b"retry: %d\n%b%b" % (RETRY_MS, self._id(), _frame("hello", told))

    def _farewell(self) -> bytes:
        """The last frame says why; a subscriber without a good place is told where to begin again."""
        why = self._subscriber.ending or "bye"
        if why == "reset":
            return _frame(why, {"snapshot": SNAPSHOT})
        # Unequal pauses, so that all who were here do not come back at once.
        retry = RETRY_MS + secrets.randbelow(RETRY_MS) if why == "bye" else RETRY_MS
        return b"retry: %d\n%b%b" % (retry, self._id(), _frame(why, {}))

    def _id(self) -> bytes:
        """Where the stream stands: it moves on also where the subscriber may have nothing, so it does not grow old."""
        return b"id: %d.%d.%d\n" % (self._epoch, self._place, self._prev)


def _frame(event: str, data: dict[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), orjson.dumps(data))


async def _gone(receive: Receive, subscriber: Subscriber) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    subscriber.end("gone")


def expect_begun(hub: Hub) -> None:
    """Refuse while this process has not read the feed yet.

    Raises:
        Problem: overloaded.
    """
    if hub.epoch == 0:
        raise Problem("overloaded")
