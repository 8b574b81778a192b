"""RFC 9457 problems, the only form of an error: what may go wrong, and how each fault becomes one answer."""

import re
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import asyncpg
import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.database import Overloaded
from api.reference import problem_types
from data_contracts.errors import JifenError

MEDIA_TYPE = "application/problem+json"
REFUSED = "JF001"
"""SQLSTATE of `hall.refuse`: the message is the problem's code, the detail its members as JSON."""

MOST_RULES = 500
CODES = "x-problem-codes"
"""Where an operation's response keeps the codes of its problems until the OpenAPI file is written."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_BUSY = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.InternalClientError,  # what the driver says when the server ends a connection between two messages
    ConnectionError,
    TimeoutError,
)
_UNDONE = (
    asyncpg.QueryCanceledError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
)
"""The server's word that it ended a statement and undid it."""
_RETRY_AFTER = {"overloaded": 1, "idempotency-in-flight": 1, "engine-unavailable": 5}


class Problem(JifenError):
    """What the caller is told: a type of problems.yaml with its own members.

    Args:
        code: the last step of the problem's `type`.
        members: extension members of the answer; no other party's data, no SQL. `retry_after_seconds`, or
            `retry_after_ms` rounded up to whole seconds, becomes the header Retry-After; `headers` is not shown but
            sent as headers.
    """

    def __init__(self, code: str, /, *, headers: Mapping[str, str] | None = None, **members: object) -> None:
        super().__init__(problem_types()[code].title.en)
        self.code = code
        self.members = members
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        """The HTTP status of its type."""
        return problem_types()[self.code].status


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer with these problems; those of every operation are added to them.

    Raises:
        KeyError: a code that problems.yaml does not have; seen as the route is imported.
    """
    by_status: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        found = by_status.setdefault(problem_types()[code].status, {"description": "", CODES: []})
        found[CODES] = sorted({*found[CODES], code})
        found["description"] = ", ".join(found[CODES])
    return by_status


def answer_of(problem: Problem, request: Request) -> Response:
    """The problem as an answer to this request, in the language that it asks for."""
    language = language_of(request.headers.get("accept-language", ""))
    title = problem_types()[problem.code].title
    headers = {"Content-Language": language} | problem.headers
    seconds = _seconds_to_wait(problem)
    if seconds is not None:
        headers["Retry-After"] = str(seconds)
    if problem.status == 401 and "WWW-Authenticate" not in headers:
        headers["WWW-Authenticate"] = 'Bearer realm="hall"'
    body = {
        "type": f"/problems/{problem.code}",
        "title": title.en if language == "en" else title.zh,
        "status": problem.status,
        "instance": request.scope.get("raw_path", b"").decode("ascii", "replace").split("?")[0],
        "trace_id": trace_of(request),
    } | problem.members
    return Response(orjson.dumps(body), problem.status, headers, MEDIA_TYPE)


def _seconds_to_wait(problem: Problem) -> object:
    """What Retry-After says; None: that waiting helps is not known."""
    milliseconds = problem.members.get("retry_after_ms")
    if isinstance(milliseconds, int):
        return ceil(milliseconds / 1000)
    return problem.members.get("retry_after_seconds", _RETRY_AFTER.get(problem.code))


def problem_of(error: Exception, request: Request) -> Problem:
    """What a fault means to the caller. What nobody foresaw is `internal` and says nothing of itself."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return _of_rules(error.errors())
    if isinstance(error, HTTPException):
        return _of_router(error)
    if isinstance(error, Overloaded):
        return Problem("overloaded")
    if isinstance(error, asyncpg.PostgresError) and is_refusal(error):
        return refused(error)
    # What changes nothing may be sent again; for the rest it is honest to say that the effect is unknown.
    if isinstance(error, _UNDONE) or (request.method in _SAFE and out_of_reach(error)):
        return Problem("overloaded")
    return Problem("internal")


def out_of_reach(error: BaseException) -> bool:
    """Whether the database was gone, too busy, or gave in to another's transaction: asked again, it may answer."""
    if isinstance(error, asyncpg.InterfaceError):
        # The driver's word for a connection that is closed; a value that it cannot send is its ValueError.
        return not isinstance(error, ValueError)
    return isinstance(error, _BUSY)


def is_refusal(error: asyncpg.PostgresError) -> bool:
    """Whether `hall.refuse` raised it."""
    return getattr(error, "sqlstate", None) == REFUSED


def refused(error: asyncpg.PostgresError) -> Problem:
    """The problem that `hall.refuse` raised in the database."""
    members = orjson.loads(getattr(error, "detail", None) or "{}")
    return Problem(str(getattr(error, "message", "")), **members)


def broken_rules(errors: Sequence[Any]) -> list[dict[str, str]]:
    """Every broken rule with the JSON Pointer of its place in the body, or the parameter it stands in; no value."""
    return [_broken_rule(tuple(one["loc"]), str(one["type"]), str(one["msg"])) for one in errors]


def _of_rules(errors: Sequence[Any]) -> Problem:
    """All broken rules, or so many of them: an answer must not be a multiple of what was sent."""
    left_out = len(errors) - MOST_RULES
    more: dict[str, Any] = {"errors_left_out": left_out} if left_out > 0 else {}
    return Problem("validation", errors=broken_rules(errors[:MOST_RULES]), **more)


def _broken_rule(place: tuple[int | str, ...], kind: str, sentence: str) -> dict[str, str]:
    where, steps = (place[0], place[1:]) if place else ("body", ())
    rule = {"rule": sentence.removeprefix("Value error, "), "kind": kind.replace("_", "-")}
    if where == "body":
        escaped = (str(step).replace("~", "~0").replace("/", "~1") for step in steps)
        return {"pointer": "".join(f"/{step}" for step in escaped), **rule}
    return {"in": str(where), "parameter": ".".join(str(step) for step in steps), **rule}


def _of_router(error: HTTPException) -> Problem:
    headers = dict(error.headers or {})
    match error.status_code:
        case 404:
            return Problem("not-found")
        case 405:
            return Problem("method-not-allowed", headers=headers)
        case 413:
            return Problem("body-too-large")
        case 415:
            return Problem("media-type")
        case 400:
            return Problem("malformed-json")
        case _:
            return Problem("internal")


def language_of(accepted: str) -> str:
    """`en` where Accept-Language prefers English to Chinese, else `zh` (E3)."""
    weights: dict[str, float] = {}
    for part in accepted[:200].lower().split(","):
        tag, _, parameters = part.strip().partition(";")
        weight = re.fullmatch(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", parameters)
        primary = tag.split("-")[0].strip()
        value = float(weight[1]) if weight else (0.0 if parameters else 1.0)
        weights[primary] = max(value, weights.get(primary, 0.0))
    other = weights.get("*", 0.0)
    return "en" if weights.get("en", other) > weights.get("zh", other) else "zh"


def trace_of(request: Request) -> str:
    """The trace of this request, 32 hexadecimal digits; the door gave it one."""
    return request.scope["state"]["trace_id"]


def traceparent_of(request: Request) -> str:
    """The trace context that this request's events carry (W3C): the caller's own, or one that the door made."""
    return request.scope["state"]["traceparent"]
