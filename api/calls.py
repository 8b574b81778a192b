"""Who calls, what the call may do, and how an act reaches the database: once for a key, whatever breaks on the way."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, TypeVar, cast

import asyncpg
import orjson
import rfc8785
from fastapi import Security
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from api.limits import CALLS, PACES
from api.problems import Problem, is_refusal, language_of, out_of_reach, refused, trace_of, traceparent_of
from api.scopes import OAUTH

KEY = re.compile(r"[\x21-\x7e]{1,255}")
REACH_SECONDS = 3.0
"""How long an act is tried anew over fresh connections: safe, since its key lets it happen once."""

Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class Caller:
    """The client behind a token, as it was at most 30 seconds ago.

    Attributes:
        token_sha256: names the token without being one.
        expires_at: when the token does.
    """

    client_id: str
    tenant: str
    role: str
    scopes: frozenset[str]
    institution_id: str | None
    outlet_id: str | None
    uscc: str | None
    token_sha256: bytes = field(default=b"", repr=False)
    expires_at: datetime | None = None

    @property
    def paced_as(self) -> str:
        """Whose pace its calls count for: the institution's, so that more clients are no more calls."""
        return self.institution_id or self.client_id

    def actor(self) -> dict[str, object]:
        """The `p_actor` of acts."""
        return {
            "client": self.client_id,
            "tenant": self.tenant,
            "role": self.role,
            "institution": self.institution_id,
            "outlet": self.outlet_id,
            "uscc": self.uscc,
            "scopes": sorted(self.scopes),
        }


def allowed(*scopes: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency: the caller, who has at least one of the scopes and keeps to the pace.

    Raises (the dependency):
        Problem: token-missing, token-expired, scope-missing, rate-limited.
    """

    async def caller_of(
        request: Request, _declared: Annotated[str | None, Security(OAUTH, scopes=list(scopes))]
    ) -> Caller:
        service = request.app.state.service
        caller = await service.tokens.caller(service.pool, request.headers.get("authorization"))
        request.scope["state"]["client_id"] = caller.client_id
        service.limits.count(request, CALLS, caller.paced_as)
        own = PACES.get((request.method, request.scope["route"].path))
        if own is not None:
            service.limits.count(request, own, caller.paced_as)
        if not caller.scopes.intersection(scopes):
            raise Problem("scope-missing", scopes=sorted(scopes))
        return caller

    return caller_of


def found(thing: Thing | None) -> Thing:
    """The thing itself.

    Raises:
        Problem: not-found: there is none, or it is not the caller's to see.
    """
    if thing is None:
        raise Problem("not-found")
    return thing


def answer(
    body: BaseModel | Mapping[str, object] | Sequence[Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A body as JSON, without a second look at what was made here."""
    return Response(orjson.dumps(body, default=_plain), status, headers, "application/json")


def _plain(thing: object) -> object:
    if isinstance(thing, BaseModel):
        return thing.model_dump(mode="json")
    raise TypeError(f"{type(thing).__name__} is no JSON")


async def act(request: Request, caller: Caller, name: str, args: Mapping[str, object]) -> Response:
    """Do `hall.act_<name>` once for the caller's Idempotency-Key, and answer what it answered the first time.

    Raises:
        Problem: what the act refuses; idempotency-key-missing, idempotency-key-reused, idempotency-in-flight;
            overloaded when the database was out of reach for seconds, internal when it may have done the act before:
            repeating with the same key is safe after both.
    """
    row = await _persistently(request, _ONCE, (*_keyed(request, caller), name, caller.actor(), dict(args),
        language_of(request.headers.get("accept-language", "")), trace_of(request),
        traceparent_of(request)))  # fmt: skip
    request.app.state.service.acted.set()
    return _stored(row["status"], row["body"], replayed=row["replayed"])


async def already(request: Request, caller: Caller) -> Response | None:
    """The stored answer of the caller's key, if there is one; asked before work too dear to do for a repetition.

    Raises:
        Problem: as `act`.
    """
    row = await _persistently(request, _SEEN, _keyed(request, caller))
    return None if row["status"] is None else _stored(row["status"], row["body"], replayed=True)


_ONCE = """
SELECT status, body, replayed
FROM hall.once($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
_SEEN = "SELECT status, body FROM hall.seen($1, $2, $3, $4, $5)"


def _keyed(request: Request, caller: Caller) -> tuple[str, str, str, str, bytes]:
    """Client, method, path template, key and fingerprint: what makes two calls the same (I2)."""
    keys = request.headers.getlist("idempotency-key")
    if len(keys) != 1 or not KEY.fullmatch(keys[0]):
        raise Problem("idempotency-key-missing")
    asked = [request.scope["state"]["body"], dict(sorted(request.path_params.items()))]
    try:
        fingerprint = sha256(rfc8785.dumps(asked)).digest()
    except rfc8785.CanonicalizationError:
        # A whole number beyond 2**53 that no rule of the body bounds: I-JSON has none (RFC 7493 §2.2).
        raise Problem("malformed-json", detail="a number is out of bounds") from None
    return caller.client_id, request.method, request.scope["route"].path, keys[0], fingerprint


async def _persistently(request: Request, statement: str, arguments: Sequence[object]) -> asyncpg.Record:
    """The one row of a statement that may be sent again whatever became of it: the key lets it happen once."""
    pool: asyncpg.Pool = request.app.state.service.pool
    clock = asyncio.get_running_loop().time
    until = clock() + REACH_SECONDS
    pause = 0.01
    in_doubt = False
    while True:
        is_sent = False
        try:
            async with pool.acquire(timeout=REACH_SECONDS) as connection:
                is_sent = True
                try:
                    # A function with OUT parameters returns one row.
                    return cast("asyncpg.Record", await connection.fetchrow(statement, *arguments))
                except asyncpg.InternalClientError:
                    connection.terminate()  # the driver has lost its place: nobody may use it again
                    raise
        except asyncpg.PostgresError as error:
            if is_refusal(error):
                problem = refused(error)
                # After a broken connection it is our own former try that is still in flight.
                if not (in_doubt and problem.code == "idempotency-in-flight" and clock() < until):
                    raise problem from None
            elif not out_of_reach(error):
                raise
            fault: Exception = error
        except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
            if not out_of_reach(error):
                raise
            fault = error
        # What the server itself took back had no effect; where the connection broke, nobody knows.
        in_doubt = in_doubt or (is_sent and not isinstance(fault, _TAKEN_BACK))
        if clock() + pause > until:
            raise Problem("internal" if in_doubt else "overloaded") from fault
        await asyncio.sleep(pause)
        pause *= 2


_TAKEN_BACK = (
    asyncpg.QueryCanceledError,
    asyncpg.InsufficientResourcesError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
)


def _stored(status: int, body: str, *, replayed: bool) -> Response:
    failed = status >= 400
    headers = {"Idempotent-Replayed": "true"} if replayed else {}
    return Response(body, status, headers, "application/problem+json" if failed else "application/json")
