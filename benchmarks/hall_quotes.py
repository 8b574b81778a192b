"""A limit quote by HTTP, and its parts one by one: what a firm waits for when it asks for its limit."""

import asyncio
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from datetime import time as dt_time
from hashlib import sha256

import asyncpg
import orjson
from hall_clients import lines, message
from hall_stage import serving

from api.database import Pool, pool_of
from api.engines import Engines
from api.facts import known_of_enterprise
from api.loading import load
from api.migrating import prepare
from api.scopes import ROLES
from data_contracts.samples import AS_OF
from scoring.features import features
from scoring.rulebook import under_policy
from tests.ground import ground
from tests.hall import made

Figures = list[float]


async def town(server: str) -> str:
    """Address of a database with a made-up park of 200 firms, at the park's day."""
    owner = await asyncpg.connect(server)
    await owner.execute("CREATE DATABASE bench_quotes")
    await owner.close()
    url = server.rpartition("/")[0] + "/bench_quotes"
    await prepare(url)
    owner = await asyncpg.connect(url)
    noon = datetime.combine(AS_OF, dt_time(12), timezone(timedelta(hours=8)))
    await owner.execute(
        "INSERT INTO hall.clock_offset (tenant, \"offset\") VALUES ('default', $1)", noon - datetime.now(UTC)
    )
    await owner.close()
    async with pool_of(url) as pool:
        await load(pool, ground().park, lambda _: None)
    return url


async def portal(owner: asyncpg.Connection) -> tuple[str, str]:
    """The platform that speaks for every firm: its client and a token."""
    scopes, token = list(ROLES["portal"]), secrets.token_urlsafe(32)
    client = await made.client(owner, "portal", scopes)
    await owner.execute("INSERT INTO hall.client_key (client_id, kid, jwk) VALUES ($1, 'k', '{}')", client)
    await owner.execute(
        "INSERT INTO hall.access_token (token_sha256, client_id, kid, scopes, expires_at) "
        "VALUES ($1, $2, 'k', $3, clock_timestamp() + interval '1 day')",
        sha256(token.encode()).digest(), client, scopes,
    )  # fmt: skip
    await owner.execute("UPDATE hall.enterprise SET portal = $1", client)
    return client, token


async def quotes(server: str, most: int) -> list[tuple[str, Figures]]:
    """Milliseconds of each: whole quotes of firms by HTTP, one after another, and the parts of those of others."""
    url = await town(server)
    owner = await asyncpg.connect(url)
    client, token = await portal(owner)
    usccs = [row["uscc"] for row in await owner.fetch("SELECT uscc FROM hall.enterprise ORDER BY uscc")]
    half = min(most, len(usccs) // 2)
    found = [("POST /v1/limit-quotes, first of the day", await by_http(url, token, usccs[:half]))]
    async with pool_of(url) as pool:
        found += await parts(pool, owner, made.actor("portal", client), usccs[half : 2 * half])
    await owner.close()
    return found


async def by_http(url: str, token: str, usccs: Sequence[str]) -> Figures:
    """Whole quotes; the first, which loads the model, does not count."""
    found: Figures = []
    with serving(url, ground().home) as (address, _):
        async with lines(address, 1) as (line,):
            for uscc in usccs:
                body = orjson.dumps({"uscc": uscc, "scheme": "torch-points"})
                asked = message("POST /v1/limit-quotes", token, secrets.token_hex(8), body)
                began = time.perf_counter()
                status = await line.said(asked)
                found.append((time.perf_counter() - began) * 1e3)
                if status != 201:
                    raise SystemExit(f"a quote was answered {status}")
    return found[1:]


async def parts(
    pool: Pool, owner: asyncpg.Connection, actor: dict[str, object], usccs: Sequence[str]
) -> list[tuple[str, Figures]]:
    """The steps of a quote, called as the service calls them."""
    ready = Engines(ground().home).ready("torch-points")
    engine = ready.engine
    steps: dict[str, Figures] = {
        name: [] for name in ("records read", "features", "PD, its bound, every improvement", "whole decision", "store")
    }

    def timed(name: str, work: Callable[[], object]) -> object:
        began = time.perf_counter()
        answer = work()
        steps[name].append((time.perf_counter() - began) * 1e3)
        return answer

    async def awaited(name: str, work: Awaitable[object]) -> None:
        began = time.perf_counter()
        await work
        steps[name].append((time.perf_counter() - began) * 1e3)

    for uscc in usccs:
        await awaited("records read", known_of_enterprise(pool, uscc))
        known = await known_of_enterprise(pool, uscc)
        sources = known.sources
        seen = features(sources, AS_OF)
        timed("features", lambda given=sources: features(given, AS_OF))
        rows = under_policy(seen, sources, AS_OF, engine.rulebook)
        timed("PD, its bound, every improvement", lambda given=rows: engine.estimator.risk(given))
        timed("whole decision", lambda given=sources, whose=uscc: ready.made(given, whose, AS_OF))
        decided = await asyncio.to_thread(ready.made, sources, uscc, AS_OF)
        if decided is not None:
            args = {"uscc": uscc, "scheme": "torch-points", "decision": decided.decision, "text": decided.text,
                    "facts_mark": known.mark}  # fmt: skip
            await awaited("store", made.act(owner, actor, "quote", **args))
    return [(f"  {name}", found[1:]) for name, found in steps.items()]


def p(found: Sequence[float], percent: int) -> float:
    """A percentile."""
    return statistics.quantiles(found, n=100, method="inclusive")[percent - 1]
