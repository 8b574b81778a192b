"""A real server on a test's database, and clients of each role that call it by HTTP."""

import asyncio
import secrets
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from api.scopes import ROLES
from api.service import Service
from api.serving import address_of, listening_on, served
from api.settings import Settings

NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For calls without TLS: to read the authorities that a client trusts takes a 20th of a second each time."""


@dataclass
class Client:
    """A program that calls the hall as one client."""

    client_id: str
    http: httpx2.AsyncClient
    headers: dict[str, str]

    async def get(self, path: str, **query: Any) -> httpx2.Response:
        return await self.http.get(path, params=query, headers=self.headers)

    async def post(self, path: str, body: object = None, *, key: str | None = None) -> httpx2.Response:
        headers = self.headers | {"Idempotency-Key": key or secrets.token_hex(8)}
        return await self.http.post(path, json=body if body is not None else {}, headers=headers)


@dataclass
class Hall:
    """A serving hall; `owner` may do what no client may."""

    service: Service
    owner: asyncpg.Connection
    http: httpx2.AsyncClient

    async def institution(self, name: str) -> str:
        """A new institution's id."""
        made = "in_" + secrets.token_hex(16)
        await self.owner.execute(
            "INSERT INTO hall.institution (id, name, hold_cap, daily_claim_cap) VALUES ($1, $2, 9, 9)", made, name
        )
        return made

    async def client(self, role: str, *, institution: str | None = None, uscc: str | None = None) -> Client:
        """A client with every scope of its role and a token that lives."""
        name, token = f"{role}-{secrets.token_hex(4)}", secrets.token_urlsafe(32)
        scopes = sorted({*ROLES[role], "facts:write"}) if role == "scoring" else list(ROLES[role])
        await self.owner.execute(
            "INSERT INTO hall.client (id, name, role, scopes, institution_id, uscc) VALUES ($1, $1, $2, $3, $4, $5)",
            name,
            role,
            scopes,
            institution,
            uscc,
        )
        await self.owner.execute("INSERT INTO hall.client_key (client_id, kid, jwk) VALUES ($1, 'k', '{}')", name)
        await self.owner.execute(
            "INSERT INTO hall.access_token (token_sha256, client_id, kid, scopes, expires_at) "
            "VALUES ($1, $2, 'k', $3, clock_timestamp() + interval '1 hour')",
            sha256(token.encode()).digest(),
            name,
            scopes,
        )
        return Client(name, self.http, {"Authorization": f"Bearer {token}", "Accept-Language": "en"})


@asynccontextmanager
async def serving(database: str, home: Path, **own: Any) -> AsyncGenerator[Hall]:
    """The hall on a free port of this machine, in this loop; `own` are its settings, rate limits are off."""
    settings = Settings(**{"home": home, "rate_limits": False, **own})
    owner = await asyncpg.connect(database)
    listening = listening_on("127.0.0.1", 0)
    address = address_of(listening)
    try:
        async with (
            served(settings, database, listening) as service,
            httpx2.AsyncClient(base_url=address, timeout=60, verify=NO_AUTHORITIES) as http,
        ):
            async with asyncio.timeout(20):
                # Until the feed was read once, a stream is told to come back; the hub has no event for it.
                while service.hub.epoch == 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            yield Hall(service, owner, http)
    finally:
        owner.terminate()  # at its end uvloop waits for ever for a connection that a failing test left open
