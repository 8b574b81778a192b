"""A simulated party's way into the hall: real HTTP, a key and a token of its own, and one stream of events.

Whatever became of an answer, an act is sent again with the same Idempotency-Key, as the hall asks of every client.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.problems import Problem
from api.tokens import ASSERTION_TYPE
from data_contracts.errors import JifenError

TRIES = 8
RENEW_SECONDS = 60.0
ASSERTION_SECONDS = 120
SILENCE_SECONDS = 45.0
"""Three heartbeats: a stream that is silent for longer is dead."""

_REPEATED = frozenset({"overloaded", "maintenance", "engine-unavailable", "idempotency-in-flight", "internal"})

Take = Callable[[str, Mapping[str, Any]], None]


class HallUnreachable(JifenError):
    """The hall gave no answer for as long as a client waits."""

    code = "hall-unreachable"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the hall answered: a status, and a body of JSON."""

    status: int
    body: Any

    @property
    def code(self) -> str:
        """Of the problem; empty: there is none."""
        return str(self.body["type"]).removeprefix("/problems/") if self.status >= 400 else ""


@asynccontextmanager
async def connections(address: str) -> AsyncGenerator[httpx2.AsyncClient]:
    """Connections to the hall that its simulated parties share; no proxy of the surroundings stands between."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30)
    async with httpx2.AsyncClient(base_url=address, limits=limits, timeout=30, trust_env=False) as http:
        yield http


@dataclass
class Client:
    """One client of the hall.

    Attributes:
        http: connections that it shares with others.
        issuer: the hall's name, the `aud` of assertions.
        client_id, kid, key: by which the hall knows it.
        problems: counts the problems that it was answered, by code.
        gaps: how often the stream left out an event that it was entitled to.
        connected: the stream is open.
    """

    http: httpx2.AsyncClient
    issuer: str
    client_id: str
    kid: str
    key: Ed25519PrivateKey
    problems: Counter[str] = field(default_factory=Counter)
    gaps: int = 0
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    _token: str = ""
    _renew_at: float = 0.0
    _renewing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def get(self, path: str) -> Answer:
        """Read."""
        return await self._call("GET", path, None, {})

    async def post(
        self, path: str, body: Mapping[str, object], *, fence: int | None = None, patient: bool = True
    ) -> Answer:
        """Act once, however often it must be sent.

        Args:
            path: of the operation.
            body: its arguments.
            fence: of the claim that it is done under.
            patient: wait and send again when the pace is too quick; else `rate-limited` is the answer.
        """
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        if fence is not None:
            headers["Claim-Fence"] = str(fence)
        return await self._call("POST", path, orjson.dumps(body), headers, patient=patient)

    async def _call(
        self, method: str, path: str, body: bytes | None, own: Mapping[str, str], *, patient: bool = True
    ) -> Answer:
        pause = 0.05
        for _ in range(TRIES):
            headers = {**await self._identity(), **own}
            if body is not None:
                headers["Content-Type"] = "application/json"
            try:
                response = await self.http.request(method, path, content=body, headers=headers)
            except httpx2.TransportError:
                await asyncio.sleep(pause)
                pause *= 2
                continue
            answer = Answer(response.status_code, orjson.loads(response.content) if response.content else {})
            if answer.status < 400:
                return answer
            self.problems[answer.code] += 1
            if answer.code == "token-expired":
                self._renew_at = 0.0
            elif answer.code not in _REPEATED and not (patient and answer.code == "rate-limited"):
                return answer
            await asyncio.sleep(max(pause, float(response.headers.get("retry-after", 0))))
            pause *= 2
        raise HallUnreachable(f"{method} got no answer in {TRIES} tries.")

    async def _identity(self) -> dict[str, str]:
        """The token as a header, renewed a minute before its end."""
        async with self._renewing:
            if time.monotonic() >= self._renew_at:
                await self._renew()
        return {"Authorization": f"Bearer {self._token}", "Accept-Language": "en"}

    async def _renew(self) -> None:
        now = int(time.time())
        claims = {
            "iss": self.client_id, "sub": self.client_id, "aud": self.issuer, "jti": secrets.token_hex(16),
            "iat": now, "exp": now + ASSERTION_SECONDS,
        }  # fmt: skip
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": jwt.encode(claims, self.key, algorithm="EdDSA", headers={"kid": self.kid}),
        }
        response = await self.http.post("/oauth/token", data=form)
        if response.status_code != 200:
            raise Problem(orjson.loads(response.content)["type"].removeprefix("/problems/"))
        granted = response.json()
        self._token = granted["access_token"]
        self._renew_at = time.monotonic() + granted["expires_in"] - RENEW_SECONDS

    # -------------------------------------------------------------------------------------------------------- stream

    async def follow(self, take: Take) -> None:
        """Hand every event to `take`, for ever: a stream that ends is opened again where it ended."""
        place: str | None = None
        last: str | None = None
        while True:
            try:
                async with self.http.stream(
                    "GET", "/v1/hall/stream", headers=await self._identity(), params={"after": place} if place else {},
                    timeout=httpx2.Timeout(30, read=SILENCE_SECONDS),
                ) as response:  # fmt: skip
                    if response.status_code == 200:
                        async for event, where, data in _frames(response):
                            if event == "reset":
                                place = last = None
                                break
                            if where:
                                epoch, sequence, prev = where.split(".")
                                self.gaps += last is not None and prev != last
                                # The place of hello is no event of ours; its `prev` is the last that was.
                                last = prev if event == "hello" else sequence
                                place = f"{epoch}.{sequence}"
                            if event == "hello":
                                self.connected.set()
                            elif where:
                                take(event, orjson.loads(data))
            except httpx2.TransportError:
                pass
            self.connected.clear()
            await asyncio.sleep(0.2 + secrets.randbelow(500) / 1000)


async def _frames(response: httpx2.Response) -> AsyncGenerator[tuple[str, str, bytes]]:
    """Event, id and data of each frame; comments and frames without data are left out. A frame's data is one line."""
    left = b""
    async for part in response.aiter_bytes():
        *whole, left = (left + part).split(b"\n\n")
        for frame in whole:
            fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if b": " in line)
            if b"data" in fields:
                yield fields.get(b"event", b"").decode(), fields.get(b"id", b"").decode(), fields[b"data"]
