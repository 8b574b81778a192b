"""Three `jifen serve` on one database, as behind a balancer: any of them will do, and one may go at any time."""

import asyncio
import os
import secrets
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from api.invariants import violated
from api.migrating import prepare
from api.programs import found_programs
from api.settings import Settings
from tests.hall import made, racing
from tests.hall.callers import Client
from tests.hall.doors import PATIENCE, Answer, ByHttp, Racer
from tests.hall.feeding import Stream, listening, publish_all
from tests.hall.keys import signer
from tests.hall.processes import Serving

ISSUER = "https://hall.example"
BANKS = 12


@dataclass
class Three:
    """Three programs that serve one database."""

    programs: list[Serving]
    owner: asyncpg.Connection
    everything: AsyncExitStack

    async def http(self, place: int) -> httpx2.AsyncClient:
        """A client of one of them."""
        return await self.everything.enter_async_context(
            httpx2.AsyncClient(base_url=self.programs[place].address, timeout=60)
        )

    async def client(self, racer: Racer, place: int) -> Client:
        """A bank's program that calls one of them."""
        return Client(racer.who, await self.http(place), {"Authorization": f"Bearer {racer.token}"})

    def doors(self) -> list[ByHttp]:
        """A door to each."""
        doors = [ByHttp(one.address) for one in self.programs]
        for door in doors:
            self.everything.callback(door.close)
        return doors


@pytest.fixture
async def three(database: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Three]:
    monkeypatch.setenv("JIFEN_ISSUER", ISSUER)
    monkeypatch.setenv("JIFEN_PROCESSES", "3")
    programs = [Serving(database, home) for _ in range(3)]
    async with AsyncExitStack() as everything:
        owner = await asyncpg.connect(database)
        everything.push_async_callback(owner.close)
        for one in programs:
            everything.push(one)
        await asyncio.gather(*(asyncio.to_thread(one.__enter__) for one in programs))
        yield Three(programs, owner, everything)


def wanted(bank: made.Bank, round_no: int = 1) -> dict[str, object]:
    return {"round": round_no, "outlet_id": bank.outlet, "product_id": f"{bank.product}@1", "card_version": 5}


async def settled(door: ByHttp, racer: Racer, fr: str, key: str) -> Answer:
    """The answer of a grab whose key may be under way at another process."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await door.grab(racer, fr, wanted(racer.bank), key, PATIENCE)
            if answer.code not in ("idempotency-in-flight", "overloaded"):
                return answer
            await asyncio.sleep(0.02)


async def test_c1_v4_v11_three_processes_are_one_hall(three: Three) -> None:
    """A token of one works at all; a race across them has one winner (C1); a stream goes on elsewhere (V4, V11)."""
    await token_of_one_works_at_all(three)
    await race_across_them_has_one_winner(three)
    await stream_goes_on_at_another(three)
    assert not any((await violated(three.owner)).values())


async def token_of_one_works_at_all(three: Three) -> None:
    bank = await signer(three.owner, ISSUER)
    https = [await three.http(place) for place in range(3)]
    headers = {"Authorization": f"Bearer {await bank.token(https[0])}"}
    # Without the scope, but known: a token that is not known is a 401.
    assert [(await one.get("/v1/institutions", headers=headers)).status_code for one in https] == [403, 403, 403]


async def race_across_them_has_one_winner(three: Three) -> None:
    """Every bank sends its one key to all three at once."""
    banks = await racing.racers(three.owner, BANKS)
    frs = await racing.requests(three.owner, 4)
    doors = three.doors()
    for fr in frs:
        keys = {one.who: secrets.token_hex(8) for one in banks}
        answers = await asyncio.gather(*(settled(door, one, fr, keys[one.who]) for one in banks for door in doors))
        by_bank = [answers[place : place + 3] for place in range(0, len(answers), 3)]
        assert [same for same in by_bank if len({one.body for one in same}) > 1] == []
        codes = sorted(same[0].code for same in by_bank)
        assert codes == ["", *["grab-lost"] * (BANKS - 1)]
        winner = next(same[0].json["claim_id"] for same in by_bank if same[0].status == 201)
        assert await three.owner.fetch("SELECT id FROM hall.claim WHERE fr_id = $1", fr) == [(winner,)]


async def stream_goes_on_at_another(three: Three) -> None:
    """It hears at one process of a claim made at another; the first ends within 3 s with `bye`, and nothing is lost."""
    banks = await racing.racers(three.owner, 2)
    frs = await racing.requests(three.owner, 6)
    hearer, racer = banks
    first, second, third = three.doors()
    async with listening(await three.client(hearer, 0)) as stream:
        assert (await stream.next()).event == "hello"
        assert (await second.grab(racer, frs[0], wanted(racer.bank), "key-0", PATIENCE)).status == 201
        while (await stream.next()).data.get("subject") != f"fr/{frs[0]}":
            pass
        assert stream.heard[-1].event in ("fin.request.broadcast.v1", "fin.round.taken.v1")
        assert (await first.grab(racer, frs[1], wanted(racer.bank), "key-1", PATIENCE)).status == 201
        began = time.monotonic()
        ended = asyncio.create_task(asyncio.to_thread(three.programs[0].__exit__))
        while (await stream.next()).event != "bye":
            pass
        await ended
        assert time.monotonic() - began < 3
        last = stream.heard[-1].id
    for n, (door, fr) in enumerate(zip((second, third, second, third), frs[2:], strict=True)):
        assert (await door.grab(racer, fr, wanted(racer.bank), f"key-{n + 2}", PATIENCE)).status == 201
    async with listening(await three.client(hearer, 2), last) as resumed:
        await resumed.next()
        await heard_all(three.owner, hearer, stream, resumed)


async def heard_all(owner: asyncpg.Connection, hearer: Racer, stream: Stream, resumed: Stream) -> None:
    """Both streams together had all that the outlet may have since the first began, once and in order."""
    await publish_all(owner)
    hello = stream.heard[0]
    assert hello.event == "hello"
    due = [
        row["sequence"]
        for row in await owner.fetch(
            "SELECT sequence FROM hall.feed WHERE (audience @> ARRAY[$1::integer] OR institution_id = $2) "
            "AND sequence > $3 ORDER BY sequence",
            hearer.bank.outlet_no, hearer.bank.institution, hello.sequence,
        )
    ]  # fmt: skip
    assert len(due) >= 6
    while resumed.heard[-1].sequence < due[-1]:
        await resumed.next()
    events = [one for one in [*stream.heard, *resumed.heard] if one.event.startswith("fin.")]
    assert [one.sequence for one in events] == due
    assert [one.prev for one in events] == [hello.prev, *due[:-1]]


async def test_a_copy_from_a_dump_holds_every_row_and_invariant_and_takes_claims(
    database: str, empty_database: str, tmp_path: Path
) -> None:
    owner = await asyncpg.connect(database)
    banks = [await made.bank(owner) for _ in range(2)]
    uscc = await made.enterprise(owner, limit_fen=10**9)
    line = await made.facility(owner, uscc, banks[0], 50_000_000)
    assert line
    open_fr = await made.request(owner, uscc, amount_fen=1_000_000, quote_fen=1_000_000, purpose="later")
    done = await publish_all(owner)

    dump = tmp_path / "hall.dump"
    ran("pg_dump", "--format=custom", f"--file={dump}", database)
    ran("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={empty_database}", dump)

    copy = await asyncpg.connect(empty_database)
    assert await counts(copy) == await counts(owner)
    assert await prepare(empty_database) == []
    assert not any((await violated(copy)).values())
    begun = await copy.fetchval("SELECT hall.begin_epoch('default')")
    assert begun == (done.epoch or 0) + 1
    args: dict[str, Any] = wanted(banks[1]) | {"fr_id": open_fr, "product_id": banks[1].product, "product_version": 1}
    assert (await made.act(copy, banks[1].actor, "grab", **args))["fr_id"] == open_fr
    later = await publish_all(copy)
    assert (later.epoch, (later.head or 0) > (done.head or 0)) == (begun, True)
    assert not any((await violated(copy)).values())
    await copy.close()
    await owner.close()


def ran(program: str, *words: str | Path) -> None:
    """One of PostgreSQL's own programs; the address, which holds a password, is handed over where it was named."""
    folder = found_programs(Settings().postgres_bin).folder
    known = [str(word) for word in words]
    subprocess.run([folder / program, *known], check=True, env=os.environ | {"PGCONNECT_TIMEOUT": "10"})


async def counts(connection: asyncpg.Connection) -> dict[str, int | None]:
    """Rows of every table of the hall."""
    names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'hall' ORDER BY 1")
    assert len(names) > 20
    return {
        row["tablename"]: await connection.fetchval(f"SELECT count(*) FROM hall.{row['tablename']}") for row in names
    }
