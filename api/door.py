"""The door: every request passes it, and what is no request of ours goes no further.

It gives a request its trace, reads the body whole and strictly, and gives every answer its headers, log line and
measure. A fault that nobody caught leaves it as a problem that says nothing of itself.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import counted
from api.problems import Problem, answer_of, problem_of
from api.strict_json import strict_json

MOST_BYTES = 1024 * 1024
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
BODY_SECONDS = 20.0
"""A body that is not there by then is not waited for."""

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_STAY_WITH_TLS = "max-age=31536000; includeSubDomains"

log = structlog.get_logger()


class Door:
    """An ASGI middleware around the whole application.

    Args:
        app: what lies behind.
        behind_tls: whether clients reach us by HTTPS.
        forms: paths whose body is a form (RFC 6749), not JSON.
        deprecated: by operation, headers that each of its answers carries (G2).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        behind_tls: bool = False,
        forms: frozenset[str] = frozenset(),
        deprecated: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    ) -> None:
        self._app = app
        self._deprecated = deprecated or {}
        self._behind_tls = behind_tls
        self._forms = forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        request = Request(scope, receive)
        state["traceparent"] = _traceparent(request.headers)
        state["trace_id"] = state["traceparent"].split("-")[1]
        began = time.perf_counter()
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._dress(message, state)
                if status != 405:  # the router then names another method's operation
                    for name, value in self._deprecated.get(getattr(scope.get("route"), "name", ""), ()):
                        MutableHeaders(scope=message).append(name, value)
            await send(message)

        try:
            await self._app(scope, await self._checked(request, receive), sent)
        except Exception as error:
            problem = problem_of(error, request)
            if problem.code == "internal":
                # Its sentence and the values in its frames may hold what a caller sent.
                log.error("fault", trace_id=state["trace_id"], fault=type(error).__name__, at=_places(error))  # noqa: TRY400
            if status:
                raise
            await answer_of(problem, request)(scope, receive, sent)
        finally:
            _note(request, status, time.perf_counter() - began)

    def _dress(self, message: Message, state: Mapping[str, Any]) -> None:
        headers = MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("Cache-Control", "no-store")
        headers["X-Trace-Id"] = state["trace_id"]
        if self._behind_tls:
            headers["Strict-Transport-Security"] = _STAY_WITH_TLS
        for name, value in state.get("rate", {}).items():
            headers[name] = value

    async def _checked(self, request: Request, receive: Receive) -> Receive:
        """The body's bytes as a message of their own; what they say as JSON is kept with the request.

        Raises:
            Problem: not-found, bad-filter, media-type, body-too-large, malformed-json.
        """
        # PostgreSQL keeps no such character, and nothing that we name has one.
        if "\x00" in request.url.path:
            raise Problem("not-found")
        if re.search(rb"%00", request.scope["query_string"]):
            raise Problem("bad-filter", detail="a parameter holds the character U+0000")
        request.scope["state"]["body"] = None
        if "content-length" not in request.headers and "transfer-encoding" not in request.headers:
            return receive
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(request, receive)
        except TimeoutError:
            raise Problem("malformed-json", detail="the body did not arrive in time") from None
        if body:
            media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if media_type != (FORM if request.url.path in self._forms else JSON):
                raise Problem("media-type")
            request.scope["state"]["body"] = body if media_type == FORM else strict_json(body)
        is_read = False

        async def again() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again


async def _body(request: Request, receive: Receive) -> bytes:
    """All of the body, counted as it comes: what a length declares is not believed."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("media-type", detail="a body is sent as it is, not compressed")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MOST_BYTES:
        raise Problem("body-too-large", most_bytes=MOST_BYTES)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem("malformed-json", detail="the body broke off")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BYTES:
            raise Problem("body-too-large", most_bytes=MOST_BYTES)
        if not message.get("more_body", False):
            return b"".join(parts)


def _traceparent(headers: Headers) -> str:
    """The caller's trace context (W3C) if it sent one that is well formed, else one made here."""
    given = headers.getlist("traceparent")
    if len(given) == 1 and _TRACEPARENT.fullmatch(given[0]):
        return given[0]
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def _note(request: Request, status: int, seconds: float) -> None:
    """Count and log the call by its template: no path, query or body, which may name firms."""
    route = request.scope.get("route")
    template = getattr(route, "path", "unknown")
    counted(request.method, template, status, seconds)
    state = request.scope["state"]
    log.info(
        "call",
        method=request.method if len(request.method) < 10 else "?",
        route=template,
        status=status,
        ms=round(1000 * seconds, 1),
        client=state.get("client_id"),
        trace_id=state["trace_id"],
    )


def _places(error: BaseException) -> list[str]:
    """Where a fault passed, innermost last; not its sentence, which may hold what a caller sent."""
    places: list[str] = []
    step = error.__traceback__
    while step is not None:
        places.append(f"{step.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{step.tb_lineno}")
        step = step.tb_next
    return places[-8:]
