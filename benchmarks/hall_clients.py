"""Clients that cost little: HTTP/1.1 over kept-alive lines, and ears on streams that only note when an event came."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

SENT = re.compile(rb'"sent": ?(\d{19})')
"""When an event was made, in nanoseconds of the machine's clock, as it stands in the event itself."""


class Line(asyncio.Protocol):
    """One connection: a message, then its answer."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[int] | None = None
        self._had = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not one by name

    async def said(self, message: bytes) -> int:
        """Send a message; the status of its answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        """Gather an answer until it is whole."""
        self._had += data
        head, end, body = self._had.partition(b"\r\n\r\n")
        if not end:
            return
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if len(body) >= (int(length[1]) if length else 0):
            self._had = b""
            assert self._answer is not None
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(str(exc)))

    def close(self) -> None:
        """End it."""
        self._transport.close()


class Ear(asyncio.Protocol):
    """A stream: when each event was made and when it came, until somebody closes it."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._rest = b""
        self.is_open = asyncio.get_running_loop().create_future()
        self.heard: list[tuple[int, int]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not one by name
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note each event and the time."""
        now = time.time_ns()
        if not self.is_open.done():
            # Both peers say something at once: the head of the answer.
            self.is_open.set_result(data[9:12] == b"200" or data)
        whole, _, self._rest = (self._rest + data).rpartition(b"\n")
        self.heard += [(int(sent), now) for sent in SENT.findall(whole)]

    def close(self) -> None:
        """End it."""
        self._transport.close()


@asynccontextmanager
async def lines(address: str, count: int) -> AsyncGenerator[list[Line]]:
    """So many open connections."""
    at = urlsplit(address)
    loop = asyncio.get_running_loop()
    opened = [(await loop.create_connection(Line, at.hostname or "", at.port or 80))[1] for _ in range(count)]
    try:
        yield opened
    finally:
        for one in opened:
            one.close()


@asynccontextmanager
async def ears(address: str, requests: Sequence[bytes]) -> AsyncGenerator[list[Ear]]:
    """Open streams, one a request, all answered."""
    at = urlsplit(address)
    loop = asyncio.get_running_loop()
    opened: list[Ear] = []
    try:
        for request in requests:
            _, ear = await loop.create_connection(lambda sent=request: Ear(sent), at.hostname or "", at.port or 80)
            opened.append(ear)
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(one.is_open for one in opened))
        refused = [said for said in answers if said is not True]
        if refused:
            raise SystemExit(f"{len(refused)} streams were refused: {refused[0].decode()}")
        yield opened
    finally:
        for one in opened:
            one.close()


def message(line: str, token: str = "", key: str = "", body: bytes = b"") -> bytes:
    """A request's bytes."""
    head = [f"{line} HTTP/1.1", "Host: hall", "Accept: application/json, text/event-stream"]
    head += [f"Authorization: Bearer {token}"] if token else []
    head += [f"Idempotency-Key: {key}"] if key else []
    head += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*head, "\r\n"]).encode() + body
