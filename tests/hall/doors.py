"""Doors to the hall for racers: HTTP as banks come, and SQL as the service goes to its database.

The HTTP client is raw HTTP/1.1 over asyncio: on a machine of two processors a client library would be most of the work.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import asyncpg
import orjson

from api.database import Pool
from tests.hall import made

PATIENCE = 30.0
"""Seconds that a client waits who waits at all."""


class Answer(NamedTuple):
    """What came back; `code` is the problem's, empty for success."""

    status: int
    body: bytes
    is_replayed: bool = False

    @property
    def code(self) -> str:
        return "" if self.status < 400 else self.json["type"].rsplit("/", 1)[-1]

    @property
    def json(self) -> dict[str, Any]:
        return orjson.loads(self.body)


class Unreached(Exception):
    """No message left us: certainly no effect."""


class Unanswered(Exception):
    """A message left us and no answer came: nobody knows."""


@dataclass(frozen=True)
class Racer:
    """A bank's program."""

    bank: made.Bank
    token: str

    @property
    def who(self) -> str:
        return self.bank.client


class Door(Protocol):
    """How racers reach the hall.

    Every method raises Unreached or Unanswered.
    """

    async def grab(self, racer: Racer, fr: str, body: dict[str, Any], key: str, patience: float) -> Answer: ...

    async def under_fence(self, racer: Racer, claim: str, act: str, fence: int, key: str) -> Answer: ...

    async def read(self, racer: Racer, fr: str) -> Answer: ...


# ---------------------------------------------------------------------------------------------------------- by HTTP


class ByHttp:
    """Kept-alive connections to a serving hall; a connection whose answer was not awaited is closed."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def grab(self, racer: Racer, fr: str, body: dict[str, Any], key: str, patience: float) -> Answer:
        return await self._said(racer, f"POST /v1/financing-requests/{fr}/claims", body, key=key, patience=patience)

    async def under_fence(self, racer: Racer, claim: str, act: str, fence: int, key: str) -> Answer:
        body = {"method": "call", "proof_sha256": made.HASH} if act == "contact" else {"reason": "no-capacity"}
        return await self._said(racer, f"POST /v1/claims/{claim}/{act}", body, key=key, fence=fence)

    async def read(self, racer: Racer, fr: str) -> Answer:
        return await self._said(racer, f"GET /v1/financing-requests/{fr}")

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()

    async def _said(
        self, racer: Racer, line: str, body: object = None, *, key: str = "", fence: int = 0, patience: float = PATIENCE
    ) -> Answer:
        head = [f"{line} HTTP/1.1", "Host: hall", f"Authorization: Bearer {racer.token}"]
        content = b"" if body is None else orjson.dumps(body)
        if content:
            head += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        head += [f"Idempotency-Key: {key}"] if key else []
        head += [f"Claim-Fence: {fence}"] if fence else []
        message = "\r\n".join([*head, "\r\n"]).encode() + content
        reader, writer = await self._line()
        try:
            async with asyncio.timeout(patience):
                writer.write(message)
                answer, stays = await _answer(reader)
        except BaseException as error:
            writer.close()
            if isinstance(error, OSError | TimeoutError | EOFError):
                raise Unanswered(type(error).__name__) from None
            raise
        if stays:
            self._idle.append((reader, writer))
        else:
            writer.close()
        return answer

    async def _line(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        try:
            return await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            raise Unreached(type(error).__name__) from None


async def _answer(reader: asyncio.StreamReader) -> tuple[Answer, bool]:
    """The answer, and whether the connection stays."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(fields["content-length"]))
    answer = Answer(int(head[0].split(" ")[1]), body, fields.get("idempotent-replayed") == "true")
    return answer, fields.get("connection") != "close"


# ---------------------------------------------------------------------------------------------------------- by SQL


class BySql:
    """Racers on the service's own connections, with no server between: what a fault of the database's functions shows.

    Args:
        pool: as the service.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def grab(self, racer: Racer, fr: str, body: dict[str, Any], key: str, patience: float) -> Answer:
        product, version = body["product_id"].rsplit("@", 1)
        args = body | {"fr_id": fr, "product_id": product, "product_version": int(version)}
        try:
            async with asyncio.timeout(patience):
                return await self.once(racer, "grab", args, key)
        except TimeoutError:
            raise Unanswered("TimeoutError") from None

    async def under_fence(self, racer: Racer, claim: str, act: str, fence: int, key: str) -> Answer:
        told = {"contact": {"method": "call", "proof_sha256": made.HASH}, "release": {"reason": "no", "to": "released"}}
        name = {"contact": "contact_enterprise", "release": "give_up_claim"}[act]
        return await self.once(racer, name, told[act] | {"claim_id": claim, "fence": fence}, key)

    async def read(self, racer: Racer, fr: str) -> Answer:
        while True:
            with _connection_held():
                try:
                    seen = await self._pool.fetchval("SELECT hall.look_at_request($1, $2)", racer.bank.actor, fr)
                    break
                except asyncpg.DeadlockDetectedError:  # the service says overloaded, and its client reads again
                    await asyncio.sleep(0.01)
        return Answer(200, orjson.dumps(seen)) if seen else Answer(404, b'{"type": "/problems/not-found"}')

    async def once(self, racer: Racer, act: str, args: dict[str, Any], key: str) -> Answer:
        """`hall.once` as the service calls it."""
        try:
            with _connection_held():
                row = await self._pool.fetchrow(
                    "SELECT * FROM hall.once($1, 'POST', $2, $3, $4, $2, $5, $6, 'en', 'trace')",
                    racer.who, act, key, bytes(32), racer.bank.actor, args,
                )  # fmt: skip
        except asyncpg.PostgresError as error:
            return refusal(error)
        assert row is not None
        return Answer(row["status"], row["body"].encode())


@contextmanager
def _connection_held() -> Generator[None]:
    """A connection that broke tells nothing of what the statement did."""
    try:
        yield
    except asyncpg.QueryCanceledError:
        raise
    except (
        asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, asyncpg.InterfaceError,
        asyncpg.InternalClientError, OSError
    ) as error:  # fmt: skip
        raise Unanswered(type(error).__name__) from None


def refusal(error: asyncpg.PostgresError) -> Answer:
    """A refusal as the service answers it; a statement with any other fault had no effect."""
    if error.sqlstate != "JF001":  # pyright: ignore[reportAttributeAccessIssue]  (set by the driver)
        return Answer(503, orjson.dumps({"type": "/problems/overloaded", "detail": str(error)}))
    told = orjson.loads(error.detail)  # pyright: ignore[reportAttributeAccessIssue]
    return Answer(409, orjson.dumps({"type": f"/problems/{error.message}"} | told))  # pyright: ignore[reportAttributeAccessIssue]
